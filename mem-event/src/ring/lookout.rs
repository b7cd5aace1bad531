//! Who must be signalled: a side that looks at the ring by itself spares the other the signal.
//!
//! Each side says in the page which index it wants to hear of (`rsp_event` the engine's, `req_event` the consumer's), as all
//! of Xen's rings do. While it looks by itself it names one that is not reached ([`FAR`] ahead). Before it sleeps it names the
//! next one and then looks once more ([`Lookout::end`], `Back::sleeps`): there is a full fence between the two on either side,
//! so the other side either sees the index named, or what it pushed is seen. `tests/memory_order.rs` has loom try every order.
//!
//! Xen signals every request and its consumers count on that: they name the next index without looking again. So a request
//! is signalled unless the index named is out of reach, which nobody writes who is about to sleep.

use crate::atomics::{AtomicU32, fence};
use crate::page::{Index, RingPage};
use std::sync::atomic::Ordering;

/// How far ahead an index is that nobody waits for; more than any ring has slots, less than half of all numbers.
pub(super) const FAR: u32 = 1 << 30;
/// More slots than any layout has.
const MOST_SLOTS: u32 = 64;

/// A ring as those see it who wait for its responses without holding the engine: threads that look at the page by themselves,
/// and then take the engine to have it take the response ([`crate::Input::Kick`]).
#[derive(Debug)]
pub struct Lookout {
    page: RingPage,
    /// The producer index up to which the engine has taken responses, at least.
    seen: AtomicU32,
    /// How many look.
    eyes: AtomicU32,
}

impl Lookout {
    /// Nobody looks, nothing was seen.
    #[must_use]
    pub fn new(page: RingPage) -> Lookout {
        let seen = AtomicU32::new(page.load(Index::RspProd, Ordering::Relaxed));
        Lookout { page, seen, eyes: AtomicU32::new(0) }
    }

    /// Whether there are responses that the engine may not have taken yet.
    #[inline]
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.page.load(Index::RspProd, Ordering::Relaxed) != self.seen.load(Ordering::Acquire)
    }

    /// The consumer's producer index. What the consumer did before it wrote this is seen from here on.
    #[inline]
    #[must_use]
    pub fn responses(&self) -> u32 {
        self.page.load(Index::RspProd, Ordering::Acquire)
    }

    /// The engine has looked since [`Lookout::responses`] was this. Called by whoever holds the engine.
    #[inline]
    pub fn saw(&self, responses: u32) {
        // Release: whoever finds nothing pending has the engine's own store of `rsp_event` before his.
        self.seen.store(responses, Ordering::Release);
    }

    /// From now on the caller looks again and again: the consumer need not signal.
    pub fn begin(&self) {
        self.eyes.fetch_add(1, Ordering::AcqRel);
        self.spare();
    }

    /// The engine has looked meanwhile, and asked to be signalled; the caller, who has begun and not ended, still looks.
    pub fn spare(&self) {
        let far = self.page.load(Index::RspProd, Ordering::Relaxed).wrapping_add(FAR);
        self.page.store(Index::RspEvent, far, Ordering::Relaxed);
    }

    /// The caller stops looking. True: nobody else looks, and the engine must look now, since the consumer may have spared its
    /// signal.
    ///
    /// Nothing is lost. Every far index was stored before its writer's subtraction here, so the last to subtract overwrites
    /// them all. If `rsp_prod` has not moved by the second load, a later push sees the index named here and is signalled; if it
    /// has, or the engine has not seen it, the caller has the engine look, which names the next index anew.
    #[must_use = "the consumer may have spared its signal"]
    pub fn end(&self) -> bool {
        if self.eyes.fetch_sub(1, Ordering::AcqRel) > 1 {
            return false;
        }
        let responses = self.page.load(Index::RspProd, Ordering::Relaxed);
        let is_seen = responses == self.seen.load(Ordering::Acquire);
        self.page.store(Index::RspEvent, responses.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !is_seen || self.page.load(Index::RspProd, Ordering::Relaxed) != responses
    }

    /// Whether the consumer must be signalled of the requests put until now; asked after they were put.
    #[must_use]
    pub fn must_signal(&self) -> bool {
        // Pairs with the fence in `Back::sleeps`.
        fence(Ordering::SeqCst);
        let named = self.page.load(Index::ReqEvent, Ordering::Relaxed);
        let ahead = named.wrapping_sub(self.page.load(Index::ReqProd, Ordering::Relaxed));
        !(MOST_SLOTS + 1..u32::MAX / 2).contains(&ahead)
    }

    /// How many contents the consumer has handed over, all of which can be read.
    #[must_use]
    pub fn loads(&self) -> u32 {
        self.page.load(Index::Loads, Ordering::Acquire)
    }
}
