//! Exceptions and interrupts that the guest has not caused, each of which its handler tells.
//!
//! Hardware: VM entry can deliver any vector through the guest's IDT, with an error code where the vector has one, as if the guest had met it.
//! CR2 is the hypervisor's to set before a page fault. One that `int n` would raise goes on behind that instruction, which VM entry is told
//! the length of.
//!
//! Xen: `xc_hvm_inject_trap` keeps a trap for a vCPU until it goes on, and delivers it then. So agents hide a breakpoint's handling, have a
//! page brought in, or end a process.
//!
//! What this proves: each vector of the processor's reaches the guest's handler, once, at the instruction that was next, with its error code
//! and address; the guest goes on with the instruction, or behind it.
//!
//! Symbols: `GOT`, four words a vector: how often it came, its error code, CR2 after a page fault, and how far behind the checkpoint's
//! instruction it came from (2 where `int n` would have been there, 1 for `int3`). //!
//! `WATCHED`, a page that is written after checkpoint 33: a page fault that comes then must come before the write, and the write after it.
//!
//! Checkpoints 1 to 32 come before vectors 0 to 31: the listener injects it or not. Checkpoint 34 is the end.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// Written at last.
    WATCHED: 1
);
guest::pages!(
    /// What came, four words a vector.
    GOT: 1
);

const PAGE_FAULT: u64 = 14;
const VECTORS: u64 = 32;

/// The vector that is due.
static DUE: AtomicU64 = AtomicU64::new(0);
/// Where the first one came from.
static FROM: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(met);
    for word in 0..4 * VECTORS {
        access::write(GOT.address() + word * 8, 0);
    }
    let mut came = 0;
    for vector in 0..VECTORS {
        DUE.store(vector, Ordering::Relaxed);
        checkpoint(vector + 1, vector, 0, 0);
        let [times, code, address, behind] = got(vector);
        if times > 1 {
            failure!("vector {vector} came {times} times");
        }
        if times == 1 {
            println!("vector {vector}, code {code:#x}, address {address:#x}, {behind} behind");
        }
        came += times;
    }
    DUE.store(PAGE_FAULT, Ordering::Relaxed);
    checkpoint(VECTORS + 1, came, WATCHED.address(), 0);
    access::write(WATCHED.address(), 0x2222);
    let written = access::read(WATCHED.address());
    if written != 0x2222 {
        failure!("the access that was stopped wrote {written:#x}");
    }
    checkpoint(VECTORS + 2, 0, 0, 0);
    verdict::success();
}

fn got(vector: u64) -> [u64; 4] {
    [0, 1, 2, 3].map(|word| access::read(GOT.address() + (4 * vector + word) * 8))
}

fn met(Exception { vector, code, rip }: Exception) -> Option<u64> {
    if vector != DUE.load(Ordering::Relaxed) {
        return None;
    }
    // All come from the one instruction.
    let from = FROM.load(Ordering::Relaxed);
    let first = if from == 0 { rip } else { from };
    FROM.store(first, Ordering::Relaxed);
    let times = got(vector)[0];
    let address = if vector == PAGE_FAULT { cr2() } else { 0 };
    let behind = rip.wrapping_sub(first);
    let is_checkpoint = behind <= 2;
    for (word, value) in (0..).zip([times + 1, code, address, if is_checkpoint { behind } else { 0 }]) {
        access::write(GOT.address() + (4 * vector + word) * 8, value);
    }
    // The handler of `int n` comes back behind an instruction that is not there: here the vCPU goes on with the one that is.
    Some(if is_checkpoint { first } else { rip })
}

fn cr2() -> u64 {
    let address;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
