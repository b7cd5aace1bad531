//! Who hears a ring's event channel: the service thread, and while a parked vCPU sleeps on it, that vCPU alone.
//!
//! Responses are taken by the thread that sees them first: a parked vCPU that spins (`EventChannel::pollers`), the one parked vCPU of the ring
//! that sleeps on its eventfd ([`wait_alone`]), or the service thread. While a vCPU sleeps there, the service's epoll set leaves that
//! eventfd out: it is level triggered, so a signal that no thread took is reported when it is put back.

use crate::host::watched;
use mem_event_server::EventChannel;

/// A parked vCPU that alone sleeps on the ring's eventfd. Dropped, the service listens to it again.
#[derive(Debug)]
pub struct Waiter<'a>(&'a EventChannel);

/// The service listens to a new ring.
///
/// # Errors
/// The kernel has no more descriptors.
pub fn begin(channel: &EventChannel) -> std::io::Result<()> {
    watched::watch(channel.signalled(), watched::token::CHANNEL)
}

/// The ring has ended, or its client is gone. The consumer may hold the eventfd for as long as it likes.
pub fn end(channel: &EventChannel) {
    watched::forget(channel.signalled());
}

/// The caller becomes the ring's waiter, if there is none: it sleeps on the eventfd in the service's stead.
pub fn wait_alone(channel: &EventChannel) -> Option<Waiter<'_>> {
    channel.seat.take(|| watched::listen(channel.signalled(), false)).then_some(Waiter(channel))
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.seat.leave(|| watched::listen(self.0.signalled(), true));
    }
}
