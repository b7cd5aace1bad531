//! QEMU as a process: its start, its end.

use super::folder::RunFolder;
use super::qmp::Qmp;
use super::spawn::spawn_bound;
use crate::poll;
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{PidfdFlags, Signal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long QEMU may take to set its machine up.
const START: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A running QEMU, stopped before the guest's first instruction until `cont`. Killed when dropped.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    /// Readable when the process has ended.
    ended: OwnedFd,
    /// Its monitor.
    pub qmp: Qmp,
    console: PathBuf,
    errors: PathBuf,
}

/// Why QEMU did not start.
#[derive(Debug)]
pub enum NotStarted {
    /// The program could not be run.
    NoProgram(std::io::Error),
    /// It ended, or stayed silent until it was killed.
    Ended {
        /// What it wrote on its error output.
        said: String,
        /// How it ended.
        status: Option<ExitStatus>,
    },
    /// This side could not do its part.
    Unable(anyhow::Error),
}

/// A QEMU that is not complete; killed when dropped.
struct Half(Option<Child>);

impl Half {
    fn end(&mut self) -> Option<ExitStatus> {
        let mut child = self.0.take()?;
        let _ = child.kill();
        child.wait().ok()
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.end();
    }
}

fn accept(listener: &UnixListener, ended: &OwnedFd) -> Option<std::os::unix::net::UnixStream> {
    let mut waited = [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut waited, Some(&START)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) | Ok(0) => return None,
            Ok(_) if waited[0].revents().contains(PollFlags::IN) => {
                return listener.accept().ok().map(|(stream, _)| stream);
            }
            Ok(_) => return None,
        }
    }
}

impl Qemu {
    /// Starts QEMU and waits until its machine is complete; the guest does not run yet. The command names the monitor's
    /// socket in the folder, where QEMU connects to: so nothing is waited for by looking again and again.
    ///
    /// # Errors
    /// Why it did not start.
    pub fn start(mut command: Command, folder: &RunFolder) -> Result<Qemu, NotStarted> {
        let unable = |what: &'static str| {
            move |error: std::io::Error| NotStarted::Unable(anyhow::Error::new(error).context(what))
        };
        let listener =
            UnixListener::bind(folder.file("monitor")).map_err(unable("cannot make the monitor's socket"))?;
        let errors = folder.file("errors");
        command.stderr(std::fs::File::create(&errors).map_err(unable("cannot write in the run's folder"))?);
        let child = spawn_bound(command, Vec::new()).map_err(NotStarted::NoProgram)?;
        let pid = rustix::process::Pid::from_child(&child);
        let mut half = Half(Some(child));
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| unable("cannot watch QEMU")(error.into()))?;
        let qmp = accept(&listener, &ended).and_then(|stream| Qmp::handshake(stream).ok());
        match (qmp, half.0.take()) {
            (Some(qmp), Some(child)) => Ok(Qemu { child, ended, qmp, console: folder.file("console"), errors }),
            (_, child) => {
                half.0 = child;
                let status = half.end();
                Err(NotStarted::Ended { said: std::fs::read_to_string(&errors).unwrap_or_default(), status })
            }
        }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where what the guest writes on its serial port is kept.
    #[must_use]
    pub fn console_file(&self) -> &Path {
        &self.console
    }

    /// What the guest wrote on its serial port so far.
    #[must_use]
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// What QEMU and the plugin wrote on the error output so far.
    #[must_use]
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("cannot wait for QEMU")
    }

    /// Ends the process in order, so that its trace has its end too; at once where it does not come to it within `grace`: a vCPU that
    /// stands in the kernel keeps it from that.
    pub fn end(&mut self, grace: Duration) {
        if self.terminate() {
            let _ = poll::readable(&self.ended, Instant::now() + grace);
        }
        self.kill();
    }

    /// Tells the process to end in order; whether it was still there.
    pub fn terminate(&self) -> bool {
        rustix::process::pidfd_send_signal(&self.ended, Signal::TERM).is_ok()
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl AsFd for Qemu {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The signal that ended a process, as a word.
#[must_use]
pub fn ended_by_signal(status: ExitStatus) -> Option<String> {
    let signal = status.signal()?;
    Some(match signal {
        6 => "SIGABRT".into(),
        9 => "SIGKILL".into(),
        11 => "SIGSEGV".into(),
        15 => "SIGTERM".into(),
        other => format!("signal {other}"),
    })
}
