//! When the other side must be notified: a side that polls the ring suppresses the notification.
//!
//! Each side names in the page the index at which it wants to be notified (`rsp_event` the engine's, `req_event` the consumer's), as
//! all of Xen's rings do. While a side polls, it names an index that is not reached ([`FAR`] ahead). Before it sleeps it names the next
//! index and then polls once more ([`Pollers::end_polling`], `Back::end_polling`). On either side there is a full fence between the
//! two, so either the other side sees the index named, or this side sees what was pushed. `tests/memory_order.rs` has loom try every order.
//!
//! Xen notifies of every request, and its consumers count on that: they name the next index without polling again. So the engine
//! notifies unless the index named is out of reach, and a consumer that is about to sleep never names such an index.

use crate::atomics::{AtomicU32, fence};
use crate::page::{Index, RingPage};
use std::sync::atomic::Ordering;

/// How far ahead an index is that nobody waits for; more than any ring has slots, less than half of all numbers.
pub(super) const FAR: u32 = 1 << 30;
/// More slots than any layout has.
const MOST_SLOTS: u32 = 64;

/// A ring as threads see it that wait for its responses without holding the engine: they poll the page, and then take the engine's
/// lock to have the engine take the response ([`crate::Input::Kick`]).
#[derive(Debug)]
pub struct Pollers {
    page: RingPage,
    /// The producer index up to which the engine has taken responses, at least.
    seen: AtomicU32,
    /// How many threads poll.
    pollers: AtomicU32,
}

impl Pollers {
    /// No thread polls, nothing was seen.
    #[must_use]
    pub fn new(page: RingPage) -> Pollers {
        let seen = AtomicU32::new(page.load(Index::RspProd, Ordering::Relaxed));
        Pollers { page, seen, pollers: AtomicU32::new(0) }
    }

    /// Whether there are responses that the engine may not have taken yet.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.page.load(Index::RspProd, Ordering::Relaxed) != self.seen.load(Ordering::Acquire)
    }

    /// Whether a thread polls, so that the consumer need not notify.
    #[must_use]
    pub fn is_polled(&self) -> bool {
        self.pollers.load(Ordering::Acquire) > 0
    }

    /// The consumer's producer index. What the consumer did before it wrote this is seen from here on.
    #[inline]
    #[must_use]
    pub fn responses(&self) -> u32 {
        self.page.load(Index::RspProd, Ordering::Acquire)
    }

    /// The engine has polled since [`Pollers::responses`] was this. The caller holds the engine.
    #[inline]
    pub fn polled(&self, responses: u32) {
        // Release: a thread that finds nothing pending sees the engine's own store of `rsp_event`, before the thread's own.
        self.seen.store(responses, Ordering::Release);
    }

    /// From now on the calling thread polls: the consumer need not notify.
    pub fn begin_polling(&self) {
        self.pollers.fetch_add(1, Ordering::AcqRel);
        self.suppress_notify();
    }

    /// The engine has polled meanwhile and asked to be notified; the calling thread, which has begun and not ended, still polls.
    pub fn suppress_notify(&self) {
        let far = self.page.load(Index::RspProd, Ordering::Relaxed).wrapping_add(FAR);
        self.page.store(Index::RspEvent, far, Ordering::Relaxed);
    }

    /// The calling thread stops polling. True: no other thread polls, and the engine must poll now, since the consumer may have
    /// suppressed its notification.
    ///
    /// Nothing is lost. Every far index was stored before its writer's subtraction here, so the last to subtract overwrites
    /// them all. If `rsp_prod` has not moved by the second load, a later push sees the index named here and notifies; if it
    /// has, or the engine has not seen it, the caller has the engine poll, which names the next index anew.
    #[must_use = "the consumer may have suppressed its notification"]
    pub fn end_polling(&self) -> bool {
        if self.pollers.fetch_sub(1, Ordering::AcqRel) > 1 {
            return false;
        }
        let responses = self.page.load(Index::RspProd, Ordering::Relaxed);
        let is_seen = responses == self.seen.load(Ordering::Acquire);
        self.page.store(Index::RspEvent, responses.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !is_seen || self.page.load(Index::RspProd, Ordering::Relaxed) != responses
    }

    /// Whether the consumer must be notified of the requests put until now; asked after they were put.
    #[must_use]
    pub fn must_signal(&self) -> bool {
        // Pairs with the fence in `Back::end_polling`.
        fence(Ordering::SeqCst);
        let named = self.page.load(Index::ReqEvent, Ordering::Relaxed);
        let ahead = named.wrapping_sub(self.page.load(Index::ReqProd, Ordering::Relaxed));
        !(MOST_SLOTS + 1..u32::MAX / 2).contains(&ahead)
    }

    /// How many calls the consumer has handed over, all of which can be read.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.page.load(Index::Calls, Ordering::Acquire)
    }
}
