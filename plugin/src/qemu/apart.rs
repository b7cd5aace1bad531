//! Blocks that one vCPU does not share with the others.
//!
//! QEMU keeps the blocks apart of vCPUs that are of different clusters: the cluster's number is part of what a block is made by, and looked up by,
//! in a word of each vCPU (`tcg_cflags`). The vCPUs of a PC are of none, which is number -1. One that counts as of another one runs blocks that are
//! translated for it, while the others run theirs as they are.
//!
//! The same word says whether vCPUs have threads of their own, which QEMU asks when it makes calls of callbacks.
//!
//! The word's place proves itself: QEMU's table of what it migrates says where a vCPU has whether it is halted, before which stand its number, its
//! cluster's, and that word (include/hw/core/cpu.h, since 6.1). It is looked at each time before it is written.

use super::capabilities::APART;
use super::internals::{Cpu, cpu_of};
use super::{current, raising};
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes before whether a vCPU is halted.
const NUMBER: usize = 12;
const CLUSTER: usize = 8;
const WORD: usize = 4;
/// Of the word: whether other threads run vCPUs meanwhile (`CF_PARALLEL`).
const PARALLEL: u32 = 1 << 15;
/// No cluster (`UNASSIGNED_CLUSTER_INDEX`).
const NONE: u32 = u32::MAX;
/// Of the word: the cluster (`CF_CLUSTER_MASK`), and how many instructions a block has at most, which is 0 for as many as may be.
const CLUSTERS: u32 = 0xff00_0000;
const COUNT: u32 = 0x1ff;
/// That of vCPUs which have blocks of their own. No PC has clusters.
const OWN: u32 = 0xfe00_0000;

/// Whether vCPUs can have blocks of their own here; known once a vCPU is there.
pub fn is_there() -> bool {
    static IS_THERE: OnceLock<bool> = OnceLock::new();
    if IS_THERE.get().is_none() && cpu_of(0).is_none() {
        return false;
    }
    *IS_THERE
        .get_or_init(|| APART.lacks().is_none() && cpu_of(0).is_some_and(|Cpu(cpu)| word_of(cpu, Some(0)).is_some()))
}

/// The word of a vCPU, which has this number; `None` where what stands there is no such word.
fn word_of<'a>(cpu: *mut c_void, number: Option<u32>) -> Option<&'a AtomicU32> {
    let halted = raising::halted().filter(|halted| *halted >= NUMBER)?;
    // SAFETY: 32-bit fields of a vCPU, which lives while its own thread asks: before one that QEMU's own table names, and behind the vCPU's start.
    // The first two are set when the vCPU is made, and the word is written by its own thread.
    unsafe {
        let at = |before: usize| cpu.cast::<u8>().add(halted - before).cast::<u32>();
        let is_it = number.is_none_or(|number| at(NUMBER).read() == number) && at(CLUSTER).read() == NONE;
        let word = AtomicU32::from_ptr(at(WORD));
        let found = word.load(Ordering::Relaxed);
        (is_it && matches!(found & CLUSTERS, CLUSTERS | OWN) && found & COUNT == 0).then_some(word)
    }
}

/// From its next block on a vCPU has blocks of its own, or the same as all others. In its own thread, out of any block.
pub fn set(vcpu: u32, is_apart: bool) {
    let Some(word) = cpu_of(vcpu).filter(|_| is_there()).and_then(|Cpu(cpu)| word_of(cpu, Some(vcpu))) else { return };
    let cluster = if is_apart { OWN } else { CLUSTERS };
    word.store(word.load(Ordering::Relaxed) & !CLUSTERS | cluster, Ordering::Relaxed);
}

/// While a block is translated of a vCPU that shares its thread, or no more. From 10.0 on QEMU takes a vCPU without a thread of its own for the only
/// one: its callbacks are called with the number of the vCPU that translated the block, whichever runs it. In the vCPU's thread; says whether the
/// word is there.
pub(super) fn translates_for_all(cpu: *mut c_void, is_translating: bool) -> bool {
    let Some(word) = word_of(cpu, None).filter(|_| is_there()) else { return false };
    let others = word.load(Ordering::Relaxed) & !PARALLEL;
    word.store(if is_translating { others | PARALLEL } else { others }, Ordering::Relaxed);
    true
}

/// Whether the vCPU that this thread runs has blocks of its own.
pub fn is_running() -> bool {
    let Some((_, current)) = current::own().filter(|_| is_there()) else { return false };
    // SAFETY: QEMU's variable of this thread.
    let cpu = unsafe { current.read() };
    !cpu.is_null() && word_of(cpu, None).is_some_and(|word| word.load(Ordering::Relaxed) & CLUSTERS == OWN)
}
