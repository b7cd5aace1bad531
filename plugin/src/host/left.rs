//! The mark by which a hook knows that its vCPU only comes back to an instruction, at which it left its block from the kernel.

use std::sync::atomic::{AtomicU64, Ordering};

/// The instruction, while the vCPU is out, for one kind of hook; 0 for none, else its linear address and 1.
#[derive(Debug, Default)]
pub struct Left(AtomicU64);

impl Left {
    /// It is told to leave at this instruction.
    pub fn set(&self, rip: u64) {
        self.0.store(rip.wrapping_add(1), Ordering::Release);
    }

    /// Whether it was, and is not known to be back.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// It is not out any more.
    pub fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// In the hook before this instruction: whether the vCPU only comes back to it. Once, and not after it was at another one: then it did not
    /// leave, or took an interrupt on the way.
    pub fn is_at(&self, rip: u64) -> bool {
        self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::AcqRel) == rip.wrapping_add(1)
    }
}
