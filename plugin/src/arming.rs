//! What new blocks are instrumented with: nothing while there is nothing to trap, so that the guest runs at full speed.
//!
//! Switching drops all blocks, which QEMU does when every vCPU is out of its own. Until then a vCPU may run an old block, so one
//! that was told to go on waits for the drop, out of its block. What an old block touches on a watched page meets the host's
//! MMU instead, since that page is not mapped.

use crate::qemu;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Memory instructions are checked.
pub const ACCESS: u8 = 1;
/// Every instruction is a step.
pub const STEP: u8 = 2;

/// Each predicted access is compared with QEMU's report; from the start, not switched.
pub const VERIFY: u8 = 4;

/// The memory instruction that is about to run is noted, for touches that the host's MMU stops.
pub const NOTE: u8 = 8;
/// Fetches are checked.
pub const EXECUTE: u8 = 16;
/// Instructions that make CPU events are checked.
pub const SPECIAL: u8 = 32;

static WANTED: AtomicU8 = AtomicU8::new(0);
/// Memory instructions are checked where they were to be noted.
static CHECKED: AtomicBool = AtomicBool::new(false);
static FLUSHING: AtomicBool = AtomicBool::new(false);

/// What a block that is translated now is instrumented with.
pub fn wanted() -> u8 {
    let wanted = WANTED.load(Ordering::Acquire);
    // Here, so that no switch that is under way can bring a note back.
    if wanted & NOTE != 0 && CHECKED.load(Ordering::Acquire) { wanted & !NOTE | ACCESS } else { wanted }
}

/// The start: what is wanted all along, and everything that may be wanted later where blocks cannot be dropped.
pub fn begin(always: u8, possible: u8) {
    WANTED.store(if qemu::can_flush() { always } else { always | possible }, Ordering::Release);
}

/// From now on this is wanted.
pub fn want(what: u8) {
    let before = WANTED.load(Ordering::Acquire);
    let what = what | before & VERIFY;
    if before != what && qemu::can_flush() {
        FLUSHING.store(true, Ordering::Release);
        WANTED.store(what, Ordering::Release);
        qemu::flush_blocks();
    }
}

/// Memory instructions that were to be noted are to be checked, in the blocks that are translated from here on.
pub fn notes_become_checks() {
    CHECKED.store(true, Ordering::Release);
}

/// The same is wanted, in blocks translated anew.
pub fn renew() {
    FLUSHING.store(true, Ordering::Release);
    qemu::flush_blocks();
}

/// All blocks are gone.
pub fn flushed() {
    FLUSHING.store(false, Ordering::Release);
}

/// Whether old blocks may still run.
pub fn is_flushing() -> bool {
    FLUSHING.load(Ordering::Acquire)
}

/// Asks once more for a drop that is due: a vCPU that was going to sleep may have missed it.
pub fn remind() {
    if is_flushing() {
        qemu::flush_blocks();
    }
}
