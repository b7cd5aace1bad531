//! The frames whose blocks are checked where they begin, whether the frames may be executed now or not.

use mem_event::Gfn;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bit a frame: its blocks are checked.
#[derive(Debug)]
pub struct Checked(Box<[AtomicU64]>);

impl Checked {
    /// None of so many.
    pub fn new(frames: u64) -> Checked {
        Checked((0..=frames / 64).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether those of this one are.
    pub fn has(&self, gfn: Gfn) -> bool {
        self.word(gfn).is_some_and(|word| word.load(Ordering::Acquire) & bit(gfn) != 0)
    }

    /// From now on; says whether they were before.
    pub fn add(&self, gfn: Gfn) -> bool {
        self.word(gfn).is_some_and(|word| word.fetch_or(bit(gfn), Ordering::AcqRel) & bit(gfn) != 0)
    }

    /// None are any more.
    pub fn clear(&self) {
        for word in &self.0 {
            word.store(0, Ordering::Release);
        }
    }

    fn word(&self, gfn: Gfn) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(gfn.0 / 64).ok()?)
    }
}

fn bit(gfn: Gfn) -> u64 {
    1 << (gfn.0 % 64)
}
