//! A ring's event channel as the plugin holds it: the consumer's signal, the threads that poll for responses, the vCPU that sleeps on it.
//!
//! Responses are taken by the thread that sees them first: a parked vCPU that spins ([`EventChannel::pollers`]), the one parked vCPU of the ring
//! that sleeps on its eventfd ([`EventChannel::wait_alone`]), or the service thread. While a vCPU sleeps there, the service's epoll set leaves that
//! eventfd out: it is level triggered, so a signal that no thread took is reported when it is put back.

use crate::host::watched;
use mem_event::contents::{Contents, PLACES};
use mem_event::page::RingPage;
use mem_event::{Errno, Gfn, PAGE_SIZE, Pollers, Ring};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A ring's event channel.
#[derive(Debug)]
pub struct EventChannel {
    /// The ring.
    pub ring: Ring,
    /// The process that enabled it; 0 for one that QEMU does not see.
    pub process: u32,
    /// The ring page as the threads that wait see it.
    pub pollers: Pollers,
    to_consumer: OwnedFd,
    to_engine: OwnedFd,
    /// Whether a parked vCPU sleeps on the eventfd.
    has_waiter: AtomicBool,
    /// Contents that a pager hands over.
    contents: Option<Contents>,
    /// How many of them were taken.
    loaded: AtomicU32,
}

/// A parked vCPU that alone sleeps on the ring's eventfd. Dropped, the service listens to it again.
#[derive(Debug)]
pub struct Waiter<'a>(&'a EventChannel);

impl EventChannel {
    /// The engine's end of a new ring, which the service listens to; and the consumer's two descriptors.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    pub fn new(
        ring: Ring,
        process: u32,
        page: RingPage,
        contents: Option<Contents>,
    ) -> std::io::Result<(EventChannel, [OwnedFd; 2])> {
        let make = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (to_consumer, to_engine) = (make()?, make()?);
        watched::watch(&to_engine, watched::token::CHANNEL)?;
        let ends = [to_consumer.try_clone()?, to_engine.try_clone()?];
        let pollers = Pollers::new(page);
        let (has_waiter, loaded) = (AtomicBool::new(false), AtomicU32::new(0));
        Ok((EventChannel { ring, process, pollers, to_consumer, to_engine, has_waiter, contents, loaded }, ends))
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
    pub fn signalled(&self) -> BorrowedFd<'_> {
        self.to_engine.as_fd()
    }

    /// Whether contents were handed over that nobody has taken.
    pub fn has_loads(&self) -> bool {
        self.contents.is_some() && self.pollers.loads() != self.loaded.load(Ordering::Relaxed)
    }

    /// Takes the contents that were handed over until now, in their order, and tells the consumer what became of each. To be called
    /// by the thread that holds the engine, so by one at a time. A count that runs ahead of what there is room for loads nothing.
    pub fn take_loads(&self, mut load: impl FnMut(Gfn, Box<[u8; PAGE_SIZE]>) -> Result<(), Errno>) {
        let Some(contents) = &self.contents else { return };
        let until = self.pollers.loads();
        let from = self.loaded.swap(until, Ordering::Relaxed);
        if until.wrapping_sub(from) > PLACES {
            (0..PLACES).for_each(|number| contents.finish(number, Err(Errno::EINVAL)));
            return;
        }
        let mut number = from;
        while number != until {
            let (gfn, content) = contents.take(number);
            contents.finish(number, load(gfn, content));
            number = number.wrapping_add(1);
        }
    }

    /// The caller becomes the ring's waiter, if there is none: it sleeps on the eventfd in the service's stead.
    pub fn wait_alone(&self) -> Option<Waiter<'_>> {
        if self.has_waiter.swap(true, Ordering::AcqRel) {
            return None;
        }
        watched::listen(&self.to_engine, false);
        Some(Waiter(self))
    }

    /// The ring has ended, or its client is gone. The consumer may hold the eventfd for as long as it likes.
    pub fn end(&self) {
        watched::forget(&self.to_engine);
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // In this order: the next waiter takes the eventfd out after it was put back.
        watched::listen(&self.0.to_engine, true);
        self.0.has_waiter.store(false, Ordering::Release);
    }
}
