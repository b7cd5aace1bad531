//! What asks a vCPU to end its block: a word at which each block looks first, as QEMU's other threads set it.

#![allow(unsafe_code, reason = "a word of QEMU's beside the CPU state in place")]

use super::view::View;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes before a vCPU's CPU state where the word is: the instructions left, and above them whether to leave.
const BEFORE: usize = 8;
/// To leave; and without `-icount` no instructions are counted.
const REQUESTED: u32 = 0xffff_0000;

fn word(view: &View) -> &AtomicU32 {
    // SAFETY: the word lies before the state in the vCPU (include/hw/core/cpu.h has it checked), and lives as long as that.
    unsafe { AtomicU32::from_ptr(view.state().sub(BEFORE).cast::<u32>()) }
}

/// Whether somebody has asked the vCPU to end its block.
pub fn is_made(view: &View) -> bool {
    word(view).load(Ordering::Relaxed) & REQUESTED == REQUESTED
}

/// A request that came before a turn is QEMU's reason to leave the next block. It is no reason to leave this one, and QEMU looks at what it
/// was for once the turn is over. One that holds anything but a request and nothing else is left alone. In the vCPU's own thread.
pub(super) fn forget(view: &View) {
    let _ = word(view).compare_exchange(REQUESTED, 0, Ordering::AcqRel, Ordering::Relaxed);
}
