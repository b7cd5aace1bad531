//! What new blocks are instrumented with: nothing while there is nothing to trap, so that the guest runs at full speed.
//!
//! With nothing to trap there is not even a translation callback: an empty one makes a boot of Linux 6 % longer.
//!
//! Switching drops all blocks, which QEMU does when every vCPU is out of its own. Until then a vCPU may run an old block, so one
//! that was told to go on waits for the drop, out of its block. What an old block touches on a watched page meets the host's
//! MMU instead, since that page is not mapped.

use crate::insn::special::Special;
use crate::qemu::{apart, api, internals, unfinished};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

/// Memory instructions are checked.
pub const ACCESS: u16 = 1;
/// Every instruction is a step: in the blocks of stepped vCPUs alone, where those can have their own.
pub const STEP: u16 = 2;

/// Each predicted access is compared with QEMU's report; from the start, not switched.
pub const VERIFY: u16 = 4;

/// The memory instruction that is about to run is noted, for touches that the host's MMU stops.
pub const NOTE: u16 = 8;
/// The fetches of blocks are checked whose frames may not be executed.
pub const EXECUTE: u16 = 16;
/// Instructions that write registers or break are checked.
pub const SPECIAL: u16 = 32;
/// Where each block begins, a vCPU reports what it has to report, and one that left its block while it waits goes on waiting.
pub const ENTRY: u16 = 64;
/// `cpuid` is checked.
pub const CPUID: u16 = 128;
/// So are instructions that store or load the registers of descriptor tables.
pub const DESCRIPTOR: u16 = 256;
/// So are calls of a hypervisor.
pub const HYPERCALL: u16 = 512;
/// So are reads and writes of ports.
pub const PORT: u16 = 1024;
/// So are writes of XCR0.
pub const EXTENDED: u16 = 2048;

/// All that makes CPU events.
pub const EVENTS: u16 = STEP | SPECIAL | ENTRY | CPUID | DESCRIPTOR | HYPERCALL | PORT | EXTENDED;

/// What checks an instruction for what it does besides touching memory.
pub fn checks(special: Special) -> u16 {
    match special {
        Special::Nothing => 0,
        Special::Cpuid => CPUID,
        Special::WriteExtended => EXTENDED,
        Special::Hypercall => HYPERCALL,
        Special::Descriptor(_) => DESCRIPTOR,
        Special::Port(_) => PORT,
        _ => SPECIAL,
    }
}

static WANTED: AtomicU16 = AtomicU16::new(0);
/// Memory instructions are checked where they were to be noted.
static CHECKED: AtomicBool = AtomicBool::new(false);
static FLUSHING: AtomicBool = AtomicBool::new(false);
/// Some block compares the registers in place whenever it begins.
static COMPARING: AtomicBool = AtomicBool::new(false);
/// Blocks pass through the translation callback whatever is wanted: for checkpoints.
static ALWAYS: AtomicBool = AtomicBool::new(false);
/// Whether they do; changed together with what is wanted.
static HAS_CALLBACK: Mutex<bool> = Mutex::new(false);

/// What a block that is translated now is instrumented with.
pub fn wanted() -> u16 {
    let wanted = WANTED.load(Ordering::Acquire);
    // Here, so that no switch that is under way can bring a note back.
    if wanted & NOTE != 0 && CHECKED.load(Ordering::Acquire) { wanted & !NOTE | ACCESS } else { wanted }
}

/// The same of a block that the vCPU of this thread translates.
pub fn wanted_here() -> u16 {
    let wanted = wanted();
    let steps_elsewhere = wanted & STEP != 0 && apart::is_there() && !apart::is_running();
    if steps_elsewhere { wanted & !STEP } else { wanted }
}

/// The start: what is wanted all along, and everything that may be wanted later where blocks cannot be dropped: under either gate checks
/// of memory instructions too, since pages that may be written and not read need them. `callback`: whether blocks pass through the
/// translation callback in any case.
pub fn begin(always: u16, possible: u16, callback: bool) {
    let wanted = match possible {
        0 => always,
        _ if internals::can_flush() => always,
        _ => always | possible | ACCESS,
    };
    WANTED.store(wanted, Ordering::Release);
    ALWAYS.store(callback, Ordering::Release);
    if callback || wanted != 0 {
        *HAS_CALLBACK.lock().unwrap_or_else(PoisonError::into_inner) = true;
        api::look_at_translations(true);
    }
}

/// From now on this is wanted. What checks fetches needs no drop of all blocks: those of the frames are dropped that lose the right. Nor does what
/// is told in blocks that a vCPU does not have yet.
pub fn want(what: u16) {
    let before = WANTED.load(Ordering::Acquire);
    let what = what | before & VERIFY;
    if before != what && internals::can_flush() {
        let comes_without_drop = if apart::is_there() { EXECUTE | STEP } else { EXECUTE };
        let drops = what != before | what & comes_without_drop;
        if drops {
            FLUSHING.store(true, Ordering::Release);
        }
        {
            let mut has_callback = HAS_CALLBACK.lock().unwrap_or_else(PoisonError::into_inner);
            WANTED.store(what, Ordering::Release);
            if what != 0 && !std::mem::replace(&mut *has_callback, true) {
                // Each vCPU hears of it before it runs another block, and so before it translates one after the drop.
                api::look_at_translations(true);
            }
        }
        if drops {
            internals::flush_blocks();
        }
    }
}

/// Nothing has to be noted any more.
pub fn give_up_notes() {
    want(WANTED.load(Ordering::Acquire) & !NOTE);
}

/// Memory instructions that were to be noted are to be checked, in the blocks that are translated from here on.
pub fn notes_become_checks() {
    CHECKED.store(true, Ordering::Release);
}

/// A block is translated that compares the registers in place.
pub fn compares() {
    COMPARING.store(true, Ordering::Release);
}

/// The registers in place are proven: blocks that compare them are dropped, since a short one that runs all the time would go on with
/// it for ever.
pub fn need_not_compare() {
    if COMPARING.load(Ordering::Acquire) && internals::can_flush() && !is_flushing() {
        renew();
    }
}

/// The same is wanted, in blocks translated anew.
pub fn renew() {
    FLUSHING.store(true, Ordering::Release);
    internals::flush_blocks();
}

/// All blocks are gone, and every vCPU is out of its own. Only here may the translation callback be taken back: QEMU frees it at once,
/// and elsewhere a vCPU might be about to call it. What a translation left behind that was given up goes with it, else it stays.
pub fn flushed() {
    COMPARING.store(false, Ordering::Release);
    FLUSHING.store(false, Ordering::Release);
    let mut has_callback = HAS_CALLBACK.lock().unwrap_or_else(PoisonError::into_inner);
    if WANTED.load(Ordering::Acquire) == 0 && !ALWAYS.load(Ordering::Acquire) && *has_callback && unfinished::forget() {
        *has_callback = false;
        api::look_at_translations(false);
    }
}

/// Whether old blocks may still run.
pub fn is_flushing() -> bool {
    FLUSHING.load(Ordering::Acquire)
}

/// Asks once more for a drop that is due: a vCPU that was going to sleep may have missed it.
pub fn remind() {
    if is_flushing() {
        internals::flush_blocks();
    }
}
