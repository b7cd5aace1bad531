//! The one thread that serves the outside: control calls, event channels, faults of userfaultfd.
//!
//! It never touches QEMU's mapping of guest memory, where it would stop itself, and never waits for QEMU's locks.

use crate::client::Client;
use crate::hypervisor::Hypervisor;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::time::Timespec;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Without anything to do, the thread wakes this often to write out the trace.
const IDLE: Duration = Duration::from_millis(100);
/// How long it looks again before it sleeps, while somebody waits: waking across cores costs more than a page-in.
const SPIN: Duration = Duration::from_micros(60);
/// More clients than any scenario has; a flood stops here.
const MOST_CLIENTS: usize = 64;

/// The listening control socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Makes the socket, for its owner alone. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn bind(path: &Path) -> Result<Listener, String> {
        let fail = |what: &str, error: Errno| format!("control socket {}: {what}: {error}", path.display());
        let address =
            SocketAddrUnix::new(path).map_err(|error| fail("the path is longer than a socket's may be", error))?;
        let make = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        };
        let socket = make().map_err(|error| fail("socket", error))?;
        if path.exists() {
            let probe = make().map_err(|error| fail("socket", error))?;
            match rustix::net::connect(&probe, &address) {
                Err(Errno::CONNREFUSED) => {
                    std::fs::remove_file(path)
                        .map_err(|error| format!("control socket {}: {error}", path.display()))?;
                }
                Ok(()) => return Err(fail("another QEMU serves it", Errno::ADDRINUSE)),
                Err(error) => return Err(fail("something else is there; remove it or name another path", error)),
            }
        }
        rustix::net::bind(&socket, &address).map_err(|error| fail("bind", error))?;
        // Before `listen`, so that nobody can connect in between.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| format!("control socket {}: {error}", path.display()))?;
        rustix::net::listen(&socket, 16).map_err(|error| fail("listen", error))?;
        Ok(Listener(socket))
    }

    fn accept(&self) -> Option<OwnedFd> {
        rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
    }
}

/// Signalled when the set of descriptors to watch changed from outside the thread.
static CHANGED: OnceLock<OwnedFd> = OnceLock::new();

/// From now on the thread watches the domain's userfaultfd.
pub fn watch_userfault() {
    if let Some(changed) = CHANGED.get() {
        let _ = rustix::io::write(changed, &1u64.to_ne_bytes());
    }
}

/// Starts the thread.
///
/// # Errors
/// A sentence.
pub fn start(hypervisor: &'static Hypervisor, listener: Listener) -> Result<(), String> {
    let changed =
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
    let _ = CHANGED.set(changed);
    std::thread::Builder::new()
        .name("mem-event".to_owned())
        .spawn(move || Service { hypervisor, listener, clients: Vec::new() }.run())
        .map_err(|error| format!("no thread: {error}"))?;
    Ok(())
}

struct Service {
    hypervisor: &'static Hypervisor,
    listener: Listener,
    clients: Vec<Client>,
}

impl Service {
    fn run(mut self) {
        let mut spin_until = Instant::now();
        loop {
            let spins = Instant::now() < spin_until;
            if spins {
                // The consumer or a vCPU may wait for this very core.
                std::thread::yield_now();
            }
            if self.once(if spins { Duration::ZERO } else { IDLE }) {
                if self.hypervisor.anybody_waits() {
                    spin_until = Instant::now() + SPIN;
                }
            } else if !spins {
                self.hypervisor.flush_trace();
                self.hypervisor.disarm();
            }
        }
    }

    /// Looks once; says whether there was anything.
    fn once(&mut self, wait: Duration) -> bool {
        let ready = self.poll(wait);
        let Ready { listener, userfault, clients, channels, any } = ready;
        if listener && self.clients.len() < MOST_CLIENTS {
            self.clients.extend(self.listener.accept().map(Client::new));
        }
        if userfault {
            self.faults();
        }
        // Calls before signals: a page-in's content is sent before the answer that needs it.
        for (client, _) in self.clients.iter_mut().zip(&clients).filter(|(_, ready)| **ready) {
            client.serve_calls(self.hypervisor);
        }
        if channels {
            self.clients.iter_mut().for_each(|client| client.serve_signals(self.hypervisor));
        }
        self.clients.retain_mut(|client| client.is_alive() || client.part(self.hypervisor));
        any
    }

    fn faults(&self) {
        let Some(userfault) = self.hypervisor.memory().opened_userfault() else { return };
        while let Ok(Some(fault)) = userfault.next() {
            self.hypervisor.fault(fault.address, fault.write, fault.thread);
        }
    }

    fn poll(&self, wait: Duration) -> Ready {
        let mut fds = vec![PollFd::new(&self.listener.0, PollFlags::IN)];
        if let Some(changed) = CHANGED.get() {
            fds.push(PollFd::new(changed, PollFlags::IN));
        }
        let userfault = self.hypervisor.memory().opened_userfault();
        let userfault_at = fds.len();
        fds.extend(userfault.map(|userfault| PollFd::from_borrowed_fd(userfault.as_fd(), PollFlags::IN)));
        let clients_at = fds.len();
        fds.extend(self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.socket(), PollFlags::IN)));
        let channels_at = fds.len();
        for client in &self.clients {
            fds.extend(client.channels().map(|channel| PollFd::from_borrowed_fd(channel, PollFlags::IN)));
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        let any = matches!(poll(&mut fds, Some(&timeout)), Ok(count) if count > 0);
        let is_ready = |range: std::ops::Range<usize>| any && fds[range].iter().any(|fd| !fd.revents().is_empty());
        let ready = Ready {
            listener: is_ready(0..1),
            userfault: is_ready(userfault_at..clients_at),
            clients: self.ready_clients(&fds[clients_at..]),
            channels: is_ready(channels_at..fds.len()),
            any,
        };
        if is_ready(1..userfault_at) {
            let _ = CHANGED.get().map(|changed| rustix::io::read(changed, &mut [0; 8]));
        }
        ready
    }

    /// For each client whether its socket or one of its event channels was ready, from the polled sockets of all and then
    /// the channels of all.
    fn ready_clients(&self, fds: &[PollFd<'_>]) -> Vec<bool> {
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let (sockets, mut channels) = fds.split_at(self.clients.len());
        let whole = |(client, socket): (&Client, &PollFd<'_>)| {
            let (own, rest) = channels.split_at(client.channels().count());
            channels = rest;
            is_ready(socket) || own.iter().any(is_ready)
        };
        self.clients.iter().zip(sockets).map(whole).collect()
    }
}

/// What is to be served.
struct Ready {
    listener: bool,
    userfault: bool,
    /// Of each client that there was when it was looked, whether it wants something.
    clients: Vec<bool>,
    channels: bool,
    any: bool,
}
