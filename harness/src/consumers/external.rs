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
use mem_event::message::Call;
use mem_event::{Control, Ring};
use mem_event_client::handed::{ORDERS_FD, READY_FD, SOCKET, SOCKET_FD, ring_value, ring_variable};
use mem_event_client::{Client, Order, RingSettings};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a consumer may take to end after its domain has.
const GRACE: Duration = Duration::from_secs(5);
/// How long a pager may take to carry an order out: only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Characters of a command that name it in a trace.
const NAME: usize = 200;
/// The guest's ELF, for symbols.
const GUEST: &str = "MEM_EVENT_GUEST";

/// The program `mem-event` itself: this one, or, for tests, the one in the build folder around it.
///
/// # Errors
/// There is none.
pub fn program() -> Result<PathBuf, Refusal> {
    beside::command()
}

/// A consumer's process.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Readable when the process has ended.
    ended: OwnedFd,
    command: String,
    /// See [`External::words`].
    words: Option<PathBuf>,
    /// Where it was started.
    folder: PathBuf,
    rings: Vec<Ring>,
    /// See [`External::is_xens`].
    is_xens: bool,
    ready: OwnedFd,
    /// Where it takes orders, if it was handed the paging ring.
    orders: Option<OwnedFd>,
    /// It ended, or was told to, and that is in order.
    done: bool,
    /// It is stopped, see [`Running::hold`].
    held: bool,
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
        let folder = external.folder.as_deref().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::path::absolute(folder.unwrap_or(Path::new(".")))?;
        command.current_dir(&folder);
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
        let orders = if external.has(Ring::Paging) {
            let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
            let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
            command.env(ORDERS_FD, theirs.as_raw_fd().to_string());
            handed.push(theirs);
            Some(ours)
        } else {
            None
        };
        let (ready, said) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let text = external.command.chars().take(NAME).collect();
        client.values(&Call::HandOver { text })?;
        let connection = client.into_socket();
        // Where it starts is another folder, perhaps.
        command.env(SOCKET, std::path::absolute(socket)?).env(SOCKET_FD, connection.as_raw_fd().to_string());
        command.env(READY_FD, said.as_raw_fd().to_string());
        command.envs(guest.map(std::path::absolute).transpose()?.map(|path| (GUEST, path)));
        command.stdin(Stdio::null());
        if let Some(name) = &external.words {
            // A successor's come after its predecessor's.
            let file = |ending| OpenOptions::new().create(true).append(true).open(name.with_extension(ending));
            command.stdout(file("stdout")?).stderr(file("stderr")?);
        } else {
            // Its words go where this program's own remarks go: the output is the sequence's.
            command.stdout(std::io::stderr().as_fd().try_clone_to_owned()?);
        }
        handed.extend([connection, said]);
        let child = spawn_bound(command, handed)
            .with_context(|| format!("the consumer `{}` cannot be started", external.command))?;
        let ended = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let rings = external.rings.iter().map(|handed| handed.ring).collect();
        let (command, words, is_xens) = (external.command.clone(), external.words.clone(), external.is_xens);
        Ok(Running { child, ended, command, words, folder, rings, is_xens, ready, orders, done: false, held: false })
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
            return self.closed_without_a_word();
        }
        Ok(())
    }

    /// It closed the descriptor without a word.
    fn closed_without_a_word(&mut self) -> anyhow::Result<()> {
        let command = &self.command;
        if !poll::readable(&self.ended, Instant::now() + GRACE)? {
            bail!("the consumer `{command}` never was ready: it closed the descriptor");
        }
        let status = self.child.wait()?;
        match status.code() {
            // It looked into the domain and is done, as a dump of the memory is.
            Some(0) if self.is_xens => {
                self.done = true;
                Ok(())
            }
            Some(code) if code == i32::from(Kind::Skip.exit_code()) => {
                let what = format!("the consumer `{command}` cannot run here");
                let said = self.last_word();
                let remedy = said.strip_prefix("; ").unwrap_or("see what it says above").to_owned();
                Err(Refusal::machine(what, remedy).into())
            }
            // The shell's numbers for what is no program.
            Some(126 | 127) => bail!(
                "the consumer `{command}` cannot be started in {}: {status}; a command starts in its scenario's folder, one of the \
                 command line where mem-event was started",
                self.folder.display()
            ),
            _ => bail!("the consumer `{command}` never was ready: {status}{}", self.last_word()),
        }
    }

    /// Whether a ring was handed over to it.
    #[must_use]
    pub fn has(&self, ring: Ring) -> bool {
        self.rings.contains(&ring)
    }

    /// Has the pager carry an order out; how many frames it evicted for it.
    ///
    /// # Errors
    /// It holds no paging ring, does not reply, or replies that it cannot.
    pub fn order(&self, order: Order) -> anyhow::Result<u64> {
        let orders = self.orders.as_ref().with_context(|| format!("the consumer `{}` is no pager", self.command))?;
        let mut reply = [0; Order::LONGEST];
        let sent = rustix::net::send(orders, order.to_string().as_bytes(), SendFlags::NOSIGNAL);
        let length = match sent {
            Ok(_) if !poll::readable(orders, Instant::now() + PATIENCE)? => {
                let remedy = format!("a pager takes orders at {ORDERS_FD} and replies to each (docs/pagers.md)");
                bail!(
                    "the consumer `{}` gave no reply to the order `{order}` within {PATIENCE:?}; {remedy}",
                    self.command
                );
            }
            // It is gone where this fails.
            Ok(_) => rustix::net::recv(orders, &mut reply[..], RecvFlags::empty()).map_or(0, |(_, length)| length),
            Err(_) => 0,
        };
        let reply = String::from_utf8_lossy(&reply[..length.min(Order::LONGEST)]);
        match reply.trim() {
            "" => bail!("the consumer `{}` ended, or closed {ORDERS_FD}, at the order `{order}`", self.command),
            text => text
                .parse()
                .ok()
                .with_context(|| format!("the consumer `{}`, to the order `{order}`: {text}", self.command)),
        }
    }

    /// Where it takes orders, if it was handed the paging ring.
    #[must_use]
    pub fn orders(&self) -> Option<BorrowedFd<'_>> {
        self.orders.as_ref().map(AsFd::as_fd)
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

    /// Stops it until [`Running::resume`]: its requests wait. It stands when this returns.
    ///
    /// # Errors
    /// It has ended.
    pub fn hold(&mut self) -> anyhow::Result<()> {
        let gone = || format!("the consumer `{}` is gone and cannot be held", self.command);
        rustix::process::pidfd_send_signal(&self.ended, Signal::STOP).with_context(gone)?;
        // Its end, too, ends the wait, and is left to who asks for it.
        let waited = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(self.pid()), waited)).with_context(gone)?;
        self.held = true;
        Ok(())
    }

    /// It goes on, with all that waits.
    pub fn resume(&mut self) {
        if std::mem::take(&mut self.held) {
            // It fails where it has ended, which is found otherwise.
            let _ = rustix::process::pidfd_send_signal(&self.ended, Signal::CONT);
        }
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
        self.resume();
        if self.is_xens && !self.done {
            return self.end_tool().map(|()| None);
        }
        if self.done || poll::readable(&self.ended, Instant::now() + GRACE)? {
            return self.fault();
        }
        self.kill();
        Ok(Some(format!("the consumer `{}` went on when its domain had ended", self.command)))
    }

    /// A tool of Xen's goes on when its domain has ended, as on Xen. How it ends without one is not judged.
    fn end_tool(&mut self) -> anyhow::Result<()> {
        // It fails where the tool has ended by itself.
        let _ = rustix::process::kill_process(self.pid(), Signal::TERM);
        let _ = poll::readable(&self.ended, Instant::now() + GRACE)?;
        self.kill();
        Ok(())
    }

    /// What it said last on its error output, where that is kept and not before everybody's eyes.
    fn last_word(&self) -> String {
        let said = self.words.as_ref().map(|name| std::fs::read(name.with_extension("stderr")).unwrap_or_default());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        said.lines().last().map(|line| format!("; it said last: {line}")).unwrap_or_default()
    }

    fn judge(&self, status: ExitStatus) -> Option<String> {
        (!status.success()).then(|| format!("the consumer `{}` ended with {status}{}", self.command, self.last_word()))
    }
}

impl std::fmt::Display for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = if self.held { ", which is held" } else { "" };
        write!(f, "process {}, `{}`{held}", self.child.id(), self.command)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
