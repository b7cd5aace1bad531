//! A mark that one thread leaves for another, which takes it in the midst of anything, in a signal's handler: all of it, once, or nothing.
//!
//! A vCPU that stands at a page is told to leave by such a mark and a signal. The signal comes when it comes, maybe when the vCPU has long gone on.
//! So who lets the vCPU go on takes the mark back before, and after that no signal leads anywhere. A mark is set only while the thread that
//! may take it stands still: what it holds is not written while it is read. `tests/memory_order.rs` tries every order.

use crate::atomics::{AtomicU32, AtomicU64};
use std::sync::atomic::Ordering;

/// None is set; one is; one was taken, and who took it has not decided yet.
const NONE: u32 = 0;
const SET: u32 = 1;
const TAKEN: u32 = 2;

/// How many words it holds.
pub const WORDS: usize = 6;

/// The mark.
#[derive(Debug)]
pub struct Mark {
    state: AtomicU32,
    words: [AtomicU64; WORDS],
}

impl Mark {
    /// None is set.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Mark {
        Mark { state: AtomicU32::new(NONE), words: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// None is set.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Mark {
        Mark { state: AtomicU32::new(NONE), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Sets it, in place of an earlier one. The thread that may take it stands still.
    pub fn set(&self, words: [u64; WORDS]) {
        self.take_back();
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        // After the words: who sees it set sees them.
        self.state.store(SET, Ordering::Release);
    }

    /// Takes it, if it is set; [`Mark::decided`] is to follow. Nothing but atomics: for a signal's handler.
    pub fn take(&self) -> Option<[u64; WORDS]> {
        self.state.compare_exchange(SET, TAKEN, Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(self.words.each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Who took it has done what it says, or will not. What that wrote before comes with it.
    pub fn decided(&self) {
        // Where it was taken back meanwhile it stays so.
        let _ = self.state.compare_exchange(TAKEN, NONE, Ordering::Release, Ordering::Relaxed);
    }

    /// Whether nobody has decided on it yet.
    pub fn is_pending(&self) -> bool {
        self.state.load(Ordering::Acquire) != NONE
    }

    /// It is void. What the caller publishes after this comes with it: who sees that takes no mark any more.
    pub fn take_back(&self) {
        self.state.store(NONE, Ordering::SeqCst);
    }
}

impl Default for Mark {
    fn default() -> Mark {
        Mark::new()
    }
}
