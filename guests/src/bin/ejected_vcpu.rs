//! A vCPU is unplugged while it waits, and another one comes in its place.
//!
//! Hardware: a processor that the firmware ejects executes nothing any more. What it was about to do has not happened.
//!
//! Xen: a vCPU that goes offline while a request of its is out stays paused; the answer comes to nobody.
//!
//! What this proves: a vCPU that waits for an answer does not keep QEMU from unplugging it; the answer that comes afterwards does no harm,
//! and a vCPU that is plugged in under the same number is stopped anew.
//!
//! Symbol `WATCHED`. Checkpoint 1, before the other vCPU is started: the page may be watched (argument: its address). The other vCPU then
//! reads its word there. Checkpoint 2, by the first: the other has begun. Let it go on when the other waits; it ejects it by
//! the registers of an ICH9. Checkpoint 3: it is gone, and another may be plugged in. Checkpoint 4: that one has read its word, too.

#![no_std]
#![no_main]

use guest::{access, checkpoint, failure, port, skip, smp, verdict};

guest::pages!(
    /// What is watched.
    WATCHED: 1
);

/// Hot-plug of vCPUs by ACPI: a write of 0 turns the registers into the newer ones, in which a vCPU is selected first.
const SELECT: u16 = 0xcd8;
const FLAGS: u16 = SELECT + 4;
const EJECT: u8 = 1 << 3;
const FOUND: u64 = 0x0e1e_c7ed;

guest::main!(main);
guest::needs!(plugged_vcpu);

fn main() {
    if smp::vcpus() != 2 {
        skip!("{} vCPUs where two are needed, the second plugged in", smp::vcpus());
    }
    access::write(WATCHED.address() + 8, FOUND);
    checkpoint(1, WATCHED.address(), 0, 0);
    smp::start(touch);
    checkpoint(2, 0, 0, 0);
    port::write_u8(SELECT, 0);
    port::write_u32(SELECT, 1);
    port::write_u8(FLAGS, EJECT);
    smp::count();
    if smp::vcpus() != 1 {
        failure!("the vCPU is still there");
    }
    checkpoint(3, 0, 0, 0);
    smp::count();
    smp::start(touch);
    smp::join();
    checkpoint(4, 0, 0, 0);
    verdict::success();
}

fn touch(vcpu: usize) {
    let found = access::read(WATCHED.address() + 8 * vcpu as u64);
    if found != FOUND {
        failure!("vCPU {vcpu} read {found:#x} where {FOUND:#x} is due");
    }
}
