//! A ring's event channel as the engine's side holds it: the consumer's signal, the threads that poll for responses, the one that sleeps
//! on it, the calls that the consumer hands over.

use crate::chaos::{Chaos, Fault};
use mem_event::message::Call;
use mem_event::multicall::{self, Multicall, PLACES};
use mem_event::page::RingPage;
use mem_event::seat::Seat;
use mem_event::{Errno, Pollers, Ring};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

/// How long a consumer that is to be killed is left alone by its engine; nobody else may be there to kill it.
const UNTIL_KILLED: Duration = Duration::from_secs(2);

/// When responses are taken.
mod lateness {
    /// When they are there.
    pub const NONE: u8 = 0;
    /// Not now.
    pub const LATE: u8 = 1;
    /// Now, and late.
    pub const OVER: u8 = 2;
}

/// A ring's event channel.
#[derive(Debug)]
pub struct EventChannel {
    /// The ring.
    pub ring: Ring,
    /// The process that enabled it; 0 for one that this process does not see.
    pub process: u32,
    /// That process's connection, by its number in the trace.
    pub connection: u32,
    /// The ring page as the threads that wait see it.
    pub pollers: Pollers,
    to_consumer: OwnedFd,
    to_engine: OwnedFd,
    /// Who has it sleeps on the eventfd for itself.
    pub seat: Seat,
    /// Calls that the consumer hands over.
    calls: Multicall,
    /// How many of them were taken.
    called: AtomicU32,
    /// Whether responses are taken late, see [`lateness`].
    lateness: AtomicU8,
}

impl EventChannel {
    /// The engine's end of a new ring, and the consumer's two descriptors.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    pub fn new(
        ring: Ring,
        (connection, process): (u32, u32),
        page: RingPage,
        calls: Multicall,
    ) -> std::io::Result<(EventChannel, [OwnedFd; 2])> {
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (to_consumer, to_engine) = (make()?, make()?);
        let ends = [to_consumer.try_clone()?, to_engine.try_clone()?];
        let pollers = Pollers::new(page);
        let (seat, called) = (Seat::default(), AtomicU32::new(0));
        let lateness = AtomicU8::new(lateness::NONE);
        let channel =
            EventChannel { ring, process, connection, pollers, to_consumer, to_engine, seat, calls, called, lateness };
        Ok((channel, ends))
    }

    /// Signals the consumer.
    pub fn signal(&self) {
        // The counter is at its end only if the consumer has not read it for 2^64 signals.
        let _ = rustix::io::write(&self.to_consumer, &1u64.to_ne_bytes());
    }

    /// Has the service take what is on the ring.
    pub fn notify_service(&self) {
        let _ = rustix::io::write(&self.to_engine, &1u64.to_ne_bytes());
    }

    /// Forgets the consumer's signals; whether there was one. To be called before the ring is polled.
    pub fn clear(&self) -> bool {
        rustix::io::read(&self.to_engine, &mut [0; 8]).is_ok()
    }

    /// Readable when the consumer has signalled.
    #[must_use]
    pub fn signalled(&self) -> BorrowedFd<'_> {
        self.to_engine.as_fd()
    }

    /// Whether there are responses for a thread that polls: those that are taken late are not there yet.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.pollers.is_pending() && !self.is_late()
    }

    /// Whether responses are taken late, and not now.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.lateness.load(Ordering::Relaxed) == lateness::LATE
    }

    /// Whether the responses that are there are to be taken later. To be asked before they are taken, by the thread that holds the engine.
    #[must_use]
    pub fn takes_later(self: &Arc<EventChannel>, chaos: &Chaos) -> bool {
        match self.lateness.load(Ordering::Relaxed) {
            lateness::LATE => return true,
            lateness::OVER => {
                self.lateness.store(lateness::NONE, Ordering::Relaxed);
                return false;
            }
            _ => {}
        }
        let late = if self.pollers.is_pending() { chaos.response(self.ring) } else { None };
        if let Some(by) = late {
            self.be_late(chaos, by);
        }
        late.is_some()
    }

    /// From now on responses are taken late, at the latest after so long.
    fn be_late(self: &Arc<EventChannel>, chaos: &Chaos, by: Duration) {
        self.lateness.store(lateness::LATE, Ordering::Relaxed);
        let channel = Arc::clone(self);
        chaos.later(by, move || {
            if channel.end_lateness() {
                channel.notify_service();
            }
        });
    }

    /// Responses are not late any more; whether they were.
    pub fn end_lateness(&self) -> bool {
        let (from, to) = (lateness::LATE, lateness::OVER);
        self.lateness.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A request was put. The fault that comes with that, if one does: what is to happen later is seen to, and what happens now is the
    /// caller's, who notifies the consumer unless the notification is late, and has it killed.
    #[must_use]
    pub fn put_with_fault(self: &Arc<EventChannel>, chaos: &Chaos) -> Option<Fault> {
        let fault = chaos.request(self.ring)?;
        let signal_after = |by| {
            let channel = Arc::clone(self);
            chaos.later(by, move || channel.signal());
        };
        match fault {
            Fault::LateNotification { by, .. } | Fault::SpuriousNotification { by, .. } => signal_after(by),
            Fault::Kill { .. } => {
                self.be_late(chaos, UNTIL_KILLED);
                signal_after(UNTIL_KILLED);
            }
            Fault::Refuse { .. } | Fault::LateResponse { .. } => {}
        }
        Some(fault)
    }

    /// Whether calls were handed over that nobody has taken.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.pollers.calls() != self.called.load(Ordering::Relaxed)
    }

    /// Takes the calls that were handed over until now, in their order, and tells the consumer what became of each. To be called
    /// by the thread that holds the engine, so by one at a time. A count that runs ahead of what there is room for does nothing.
    pub fn take_calls(&self, mut call: impl FnMut(Call) -> Result<(), Errno>) {
        let until = self.pollers.calls();
        let from = self.called.swap(until, Ordering::Relaxed);
        if until.wrapping_sub(from) > PLACES {
            (0..PLACES).for_each(|number| self.calls.finish(number, Err(Errno::EINVAL)));
            return;
        }
        let mut number = from;
        while number != until {
            let result = match self.calls.take(number) {
                Ok(taken) if multicall::takes(&taken) => call(taken),
                Ok(_) | Err(_) => Err(Errno::EINVAL),
            };
            self.calls.finish(number, result);
            number = number.wrapping_add(1);
        }
    }

    /// Has the engine take responses until none is pending: `take` gets the index up to which they are to be taken. To be called by the
    /// thread that holds the engine. A consumer that moves its index without end gets its turn with the others.
    pub fn take_responses(&self, mut take: impl FnMut(u32)) {
        /// More rounds than a ring has slots.
        const ROUNDS: u32 = 65;
        for _ in 0..ROUNDS {
            if !self.pollers.is_pending() {
                return;
            }
            let responses = self.pollers.responses();
            take(responses);
            self.pollers.polled(responses);
        }
        if self.pollers.is_pending() {
            self.notify_service();
        }
    }
}
