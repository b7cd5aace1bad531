//! A seat that one thread has at a time, and what is to be arranged around it: whoever sits has arranged it, and put it back before another one sits.
//!
//! A parked vCPU that sleeps on its ring's eventfd sits so: the service's epoll set leaves the eventfd out meanwhile. `tests/memory_order.rs`
//! tries every order.

use crate::atomics::AtomicU32;
use std::sync::atomic::Ordering;

/// The seat.
#[derive(Debug, Default)]
pub struct Seat(AtomicU32);

impl Seat {
    /// The caller sits down and arranges things, unless another thread sits: then false.
    #[must_use]
    pub fn take(&self, arrange: impl FnOnce()) -> bool {
        // Acquire: what the one before has put back is back.
        if self.0.swap(1, Ordering::Acquire) != 0 {
            return false;
        }
        arrange();
        true
    }

    /// The caller, who sits, puts things back and gets up.
    pub fn leave(&self, put_back: impl FnOnce()) {
        put_back();
        // Release: the next one arranges them after that.
        self.0.store(0, Ordering::Release);
    }

    /// For the counter-test: the word by itself.
    #[cfg(loom)]
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }
}
