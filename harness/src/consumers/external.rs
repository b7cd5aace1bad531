//! A consumer that is a process of its own: its rings are enabled here and handed over with the connection that holds them, so
//! that the engine sees the process's end as the loss of its consumer. `mem_event_client::handed` is the other side, and
//! docs/protocol.md the description.

use crate::beside;
use crate::machine::spawn::spawn_bound;
use crate::poll;
use crate::refusal::Refusal;
use crate::scenario::Scenario;
use crate::scenario::external::External;
use crate::verdict::Kind;
use anyhow::{Context, bail};
use mem_event::{Control, Ring};
use mem_event_client::handed::{READY_FD, SOCKET, SOCKET_FD, ring_value, ring_variable};
use mem_event_client::{Client, RingSettings};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a consumer may take to end after its domain has.
const GRACE: Duration = Duration::from_secs(5);
/// The guest's ELF, for symbols.
const GUEST: &str = "MEM_EVENT_GUEST";

/// The program `mem-event` itself: this one, or, for tests, the one in the build folder around it.
///
/// # Errors
/// There is none.
pub fn program() -> Result<PathBuf, Refusal> {
    beside::find("mem-event")
}

/// A consumer's process.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Readable when the process has ended.
    ended: OwnedFd,
    command: String,
    rings: Vec<Ring>,
    ready: OwnedFd,
    /// It ended, or was told to, and that is in order.
    done: bool,
}

impl Running {
    /// Enables the rings, hands them over, starts the command. `guest` is the ELF, for symbols.
    ///
    /// # Errors
    /// The plugin refuses a ring, or the command cannot be started.
    pub fn start(
        socket: &Path,
        external: &External,
        scenario: &Scenario,
        guest: Option<&Path>,
    ) -> anyhow::Result<Running> {
        let mut client = Client::connect(socket)?;
        // `exec`, so that the process that is watched and killed is the consumer and no shell around it.
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("exec {}", external.command));
        if let Some(folder) = scenario.folder.as_ref().filter(|folder| !folder.as_os_str().is_empty()) {
            command.current_dir(folder);
        }
        let mut handed = Vec::new();
        for ring in &external.rings {
            let settings = match ring.layout {
                Some(layout) => RingSettings { layout, slots: ring.slots },
                None => scenario.rings.of(ring.ring).settings(),
            };
            let RingSettings { layout, slots } = settings;
            let descriptors = client.enable(Control::Enable { ring: ring.ring, layout, slots })?;
            let numbers = descriptors.each_ref().map(AsRawFd::as_raw_fd);
            command.env(ring_variable(ring.ring), ring_value(numbers, settings));
            handed.extend(descriptors);
        }
        let (ready, said) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let connection = client.into_socket();
        command.env(SOCKET, socket).env(SOCKET_FD, connection.as_raw_fd().to_string());
        command.env(READY_FD, said.as_raw_fd().to_string());
        command.envs(guest.map(|path| (GUEST, path)));
        // Its words go where this program's own remarks go: the output is the sequence's.
        let words = std::io::stderr().as_fd().try_clone_to_owned()?;
        command.stdin(Stdio::null()).stdout(words);
        handed.extend([connection, said]);
        let child = spawn_bound(command, handed)
            .with_context(|| format!("the consumer `{}` cannot be started", external.command))?;
        let ended = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let rings = external.rings.iter().map(|handed| handed.ring).collect();
        Ok(Running { child, ended, command: external.command.clone(), rings, ready, done: false })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended without a word, or the deadline passed.
    pub fn wait_until_ready(&mut self, deadline: Instant) -> anyhow::Result<()> {
        if !poll::readable(&self.ready, deadline)? {
            bail!("the consumer `{}` did not say that it is ready; it must write to {READY_FD}", self.command);
        }
        if rustix::io::retry_on_intr(|| rustix::io::read(&self.ready, &mut [0; 1]))? == 0 {
            let skips = Some(i32::from(Kind::Skip.exit_code()));
            if poll::readable(&self.ended, Instant::now() + GRACE)? && self.child.wait()?.code() == skips {
                let what = format!("the consumer `{}` cannot run here", self.command);
                return Err(Refusal::machine(what, "see what it says above").into());
            }
            let how = if poll::readable(&self.ended, Instant::now() + GRACE)? {
                self.child.wait()?.to_string()
            } else {
                "it closed the descriptor".into()
            };
            bail!("the consumer `{}` never was ready: {how}", self.command);
        }
        Ok(())
    }

    /// Whether a ring was handed over to it.
    #[must_use]
    pub fn has(&self, ring: Ring) -> bool {
        self.rings.contains(&ring)
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it at once, in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.done = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What becomes readable when it ends; nothing where that has been seen.
    #[must_use]
    pub fn wait_for(&self) -> Option<BorrowedFd<'_>> {
        (!self.done).then(|| self.ended.as_fd())
    }

    /// Looks whether it has ended; `Some` says how, where that is a fault of its own.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn fault(&mut self) -> anyhow::Result<Option<String>> {
        if self.done {
            return Ok(None);
        }
        match self.child.try_wait()? {
            None => Ok(None),
            Some(status) => {
                self.done = true;
                Ok(self.judge(status))
            }
        }
    }

    /// The domain has ended: it is given a moment to end too, then ended. As [`Running::fault`].
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn finish(&mut self) -> anyhow::Result<Option<String>> {
        if self.done || poll::readable(&self.ended, Instant::now() + GRACE)? {
            return self.fault();
        }
        self.kill();
        Ok(Some(format!("the consumer `{}` went on when its domain had ended", self.command)))
    }

    fn judge(&self, status: ExitStatus) -> Option<String> {
        (!status.success()).then(|| format!("the consumer `{}` ended with {status}", self.command))
    }
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {}, `{}`", self.child.id(), self.command)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
