//! Many vCPUs at once, each of whose instructions is let through alone, on pages of their own and on one that is everybody's.
//!
//! Hardware: each vCPU that violates EPT leaves the guest by itself, and each goes on by itself.
//!
//! Xen: each has its instruction emulated (`VM_EVENT_FLAG_EMULATE`), with nothing open to the others.
//!
//! What this proves: an instruction that is let through runs once, whoever else is let through at the same time: no addition is lost or done twice,
//! and each makes its event, which the consumer counts.
//!
//! Symbols: `OWN`, a page for each of up to 8 vCPUs; `COMMON`, one page. Checkpoint 1: before, with the others waiting (arguments: vCPUs, accesses
//! of each). Then each vCPU adds to its own page and to the common one, 100 times each. Checkpoint 2: all are done, everything is to be opened.
//! Checkpoint 3: end (argument: what the common page holds).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// Each vCPU's own.
    OWN: 8
);
guest::pages!(
    /// Everybody's.
    COMMON: 1
);

const ADDITIONS: u64 = 100;
const VCPUS: usize = 8;

/// 1 when all may begin.
static GATE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    let vcpus = smp::vcpus();
    if !(1..=VCPUS).contains(&vcpus) {
        skip!("{vcpus} vCPUs; this is for 1 to {VCPUS}");
    }
    smp::start(adds);
    checkpoint(1, vcpus as u64, 2 * ADDITIONS, 0);
    GATE.store(1, Ordering::Release);
    adds(0);
    smp::join();
    checkpoint(2, 0, 0, 0);
    let common = access::read(COMMON.address());
    for vcpu in 0..vcpus as u64 {
        let own = access::read(own(vcpu));
        if own != ADDITIONS {
            failure!("vCPU {vcpu} added {ADDITIONS} times to its own page, which holds {own}");
        }
    }
    let due = ADDITIONS * vcpus as u64;
    if common != due {
        failure!("{due} additions were made to the common page, which holds {common}");
    }
    println!("{vcpus} vCPUs, {common} additions to the common page");
    checkpoint(3, common, 0, 0);
    verdict::success();
}

fn own(vcpu: u64) -> u64 {
    OWN.address() + vcpu * PAGE_SIZE
}

fn adds(vcpu: usize) {
    smp::wait_for(&GATE, 1);
    for _ in 0..ADDITIONS {
        access::add(own(vcpu as u64), 1);
        access::add(COMMON.address(), 1);
    }
}
