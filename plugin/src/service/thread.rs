//! The one thread that serves the outside: control calls, event channels, faults of userfaultfd.
//!
//! It never touches QEMU's mapping of guest memory, where it would stop itself, and never waits for QEMU's locks.

use crate::engine::hypervisor::Hypervisor;
use crate::host::watched::{self, token};
use crate::qemu::outside;
use crate::service::clock::Clock;
use crate::service::follow::Follow;
use crate::service::provoker::Provoker;
use mem_event::spin::Window;
use mem_event_server::{Connection, EventChannel, Kept, Listener, Peer, packet};
use rustix::event::epoll;
use rustix::time::Timespec;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While a vCPU is to run alone those that stand are told to leave as soon as they can.
const SOON: Duration = Duration::from_micros(50);
/// Polls of the rings between two polls of everything else.
const POLLS: u32 = 128;
/// The same where the consumer needs this thread's core to answer.
const FEW_POLLS: u32 = 16;

/// Starts the thread.
///
/// # Errors
/// A sentence.
pub fn start(hypervisor: &'static Hypervisor, listener: Listener) -> Result<(), String> {
    watched::watch(&listener, token::LISTENER).map_err(|error| format!("epoll: {error}"))?;
    let serve = move || {
        let window = Window::new(hypervisor.host.spin);
        let follow = Arc::new(Follow::none());
        if let Err(error) = Clock::start(hypervisor, Arc::clone(&follow)) {
            hypervisor.fail(&format!("no thread: {error}"));
        }
        Service {
            hypervisor,
            listener,
            clients: Vec::new(),
            kept: Kept::default(),
            next_client: token::CLIENT,
            window,
            waits_since: None,
            follow,
        }
        .run();
    };
    std::thread::Builder::new()
        .name("mem-event".to_owned())
        .spawn(serve)
        .map_err(|error| format!("no thread: {error}"))?;
    Ok(())
}

struct Service {
    hypervisor: &'static Hypervisor,
    listener: Listener,
    clients: Vec<(u64, Connection)>,
    kept: Kept,
    next_client: u64,
    /// How long it polls for the answer that an access in the kernel waits for.
    window: Window,
    /// Since when something waits, or since the last answer where something waits still.
    waits_since: Option<Instant>,
    /// On which core.
    follow: Arc<Follow>,
}

/// What was ready.
#[derive(Default)]
struct Ready {
    listener: bool,
    userfault: bool,
    channels: bool,
    clients: Vec<u64>,
}

impl Service {
    fn run(mut self) {
        let host = &self.hypervisor.host;
        loop {
            let are_wanted_out = outside::all_are_wanted_out() && host.anything_is_stopped();
            if self.once(are_wanted_out.then_some(SOON)) {
                host.alarm.happens();
                if Provoker::has_work(self.hypervisor) {
                    host.alarm.ring();
                }
            }
            if outside::all_are_wanted_out() {
                self.hypervisor.have_them_leave();
            }
            self.poll_for_answers();
        }
    }

    /// One round, which waits for so long at most; says whether there was anything.
    fn once(&mut self, wait: Option<Duration>) -> bool {
        let ready = wait_for(wait);
        let Some(Ready { listener, userfault, channels, clients }) = ready else { return false };
        if listener {
            self.accept();
        }
        if userfault {
            self.faults();
        }
        for (number, client) in &mut self.clients {
            // Calls before signals, and so also those of a client whose ring was signalled.
            if clients.contains(number) || channels && !client.channels().is_empty() {
                client.serve(&mut self.hypervisor, &mut self.kept);
            }
        }
        self.clients.retain_mut(|(_, client)| client.is_alive() || client.part(&mut self.hypervisor, &mut self.kept));
        if channels {
            self.answered();
        }
        true
    }

    fn accept(&mut self) {
        let Some(socket) = self.listener.accept() else { return };
        match Peer::admit(&socket, self.clients.iter().map(|(_, client)| client.peer())) {
            // Accepted and let go: one that waited for room would have the listening socket ready for ever.
            Err((errno, sentence)) => packet::refuse(&socket, errno, sentence),
            Ok(peer) if watched::watch(&socket, self.next_client).is_ok() => {
                let number = u32::try_from(self.next_client - token::CLIENT + 1).unwrap_or(u32::MAX);
                self.clients.push((self.next_client, Connection::new(&mut self.hypervisor, socket, number, peer)));
                self.next_client += 1;
            }
            Ok(_) => {}
        }
    }

    fn faults(&mut self) {
        let Some(userfault) = self.hypervisor.host.memory.opened_userfault() else { return };
        // An error is one of the kernel's, which nothing here can mend; the next round tries again.
        let _ = userfault.faults(|fault| {
            let vcpu = self.hypervisor.host.vcpu_of_thread(fault.thread);
            if self.hypervisor.fault(fault) {
                self.follow.stopped(vcpu.map(|_| fault.thread));
            }
        });
    }

    /// While a vCPU waits: polls the rings for the accesses that stand in the kernel, as a parked vCPU does for itself, and asks for
    /// the calls that a consumer makes before it answers.
    fn poll_for_answers(&mut self) {
        if !self.hypervisor.host.anything_waits() {
            return self.answered();
        }
        let begun = Instant::now();
        self.waits_since.get_or_insert(begun);
        let length = self.window.length();
        if length.is_zero() {
            return;
        }
        let channels: Vec<Arc<EventChannel>> =
            self.clients.iter().flat_map(|(_, client)| client.channels()).filter(|it| !it.is_late()).cloned().collect();
        let channels = if self.hypervisor.host.anything_is_stopped() { &channels[..] } else { &[] };
        channels.iter().for_each(|channel| channel.pollers.begin_polling());
        while self.hypervisor.host.anything_waits() && self.hypervisor.host.has_cores(0) {
            if begun.elapsed() >= length {
                std::thread::yield_now();
                let came = self.takes_pending(channels);
                self.window.came_by_yielding(came);
                break;
            }
            if !self.polls(channels) {
                break;
            }
        }
        for channel in channels {
            if channel.pollers.end_polling() {
                // It is signalled to itself, and comes after the calls.
                channel.notify_service();
            }
        }
    }

    /// An answer has come, or nothing waits any more: so long did that take.
    fn answered(&mut self) {
        if let Some(since) = self.waits_since {
            let now = Instant::now();
            self.window.waited(now - since);
            self.waits_since = self.hypervisor.host.anything_waits().then_some(now);
        }
    }

    /// Some polls, and a look at everything else where nothing came; says whether to go on.
    fn polls(&mut self, channels: &[Arc<EventChannel>]) -> bool {
        let begun = Instant::now();
        let yields = self.window.yields();
        if yields {
            std::thread::yield_now();
            if self.takes_pending(channels) {
                return true;
            }
        }
        for _ in 0..if yields { FEW_POLLS } else { POLLS } {
            if self.takes_pending(channels) {
                self.window.came_by_yielding(false);
                return true;
            }
            std::hint::spin_loop();
        }
        let goes_on = self.window.polled_after(begun.elapsed());
        self.once(Some(Duration::ZERO));
        goes_on
    }

    /// Takes the responses that are there; whether there were any.
    fn takes_pending(&mut self, channels: &[Arc<EventChannel>]) -> bool {
        let pending = || channels.iter().filter(|channel| channel.is_pending());
        let came = pending().count() > 0;
        if came {
            pending().for_each(|channel| self.take(channel));
            self.answered();
        }
        came
    }

    fn take(&self, channel: &EventChannel) {
        self.hypervisor.take_responses(channel);
        channel.pollers.suppress_notify();
    }
}

/// What is ready, at the latest after so long; `None` for nothing.
fn wait_for(wait: Option<Duration>) -> Option<Ready> {
    let set = watched::set().ok()?;
    let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; 16];
    let timeout = wait.map(|wait| Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) });
    let (events, _) = epoll::wait(set, &mut events, timeout.as_ref()).ok()?;
    let mut ready = Ready::default();
    for event in &*events {
        match event.data.u64() {
            token::LISTENER => ready.listener = true,
            token::USERFAULT => ready.userfault = true,
            token::CHANNEL => ready.channels = true,
            client => ready.clients.push(client),
        }
    }
    (!events.is_empty()).then_some(ready)
}
