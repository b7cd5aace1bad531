//! A vCPU that comes while the guest runs.
//!
//! Hardware: a processor that is plugged in waits for INIT and a start-up message like those that were there from the beginning.
//!
//! Xen: a vCPU that the toolstack brings online is under the same p2m as all others; what is watched or paged out stops it too.
//!
//! What this proves: so it is here, whether a vCPU was there when rights were set and pages were taken out, or came later.
//!
//! Symbols `WATCHED`, `PAGED`. Checkpoint 1, before any other vCPU is started (arguments: the addresses of both): vCPUs may be plugged
//! in, pages watched and taken out. Then the vCPUs are counted and started; each of the others reads its word of `PAGED`, and writes it
//! to `WATCHED`. Checkpoint 2: all have (argument: how many vCPUs there are).

#![no_std]
#![no_main]

use guest::{access, checkpoint, failure, smp, verdict};

guest::pages!(
    /// What is to be watched.
    WATCHED: 1
);
guest::pages!(
    /// What is to be paged out.
    PAGED: 1
);

guest::main!(main);

fn main() {
    for vcpu in 0..smp::MAX_VCPUS {
        access::write(word(PAGED.address(), vcpu), content(vcpu));
    }
    checkpoint(1, WATCHED.address(), PAGED.address(), 0);
    smp::count();
    smp::start(touch);
    smp::join();
    for vcpu in 1..smp::vcpus() {
        let found = access::read(word(WATCHED.address(), vcpu));
        if found != content(vcpu) {
            failure!("vCPU {vcpu} wrote {found:#x} where {:#x} is due", content(vcpu));
        }
    }
    checkpoint(2, smp::vcpus() as u64, 0, 0);
    verdict::success();
}

fn touch(vcpu: usize) {
    access::write(word(WATCHED.address(), vcpu), access::read(word(PAGED.address(), vcpu)));
}

fn word(page: u64, vcpu: usize) -> u64 {
    page + 8 * vcpu as u64
}

fn content(vcpu: usize) -> u64 {
    0x1a7e_0000 + vcpu as u64
}
