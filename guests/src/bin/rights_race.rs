//! A page whose rights change while another vCPU uses it.
//!
//! Hardware: a processor keeps what it knows of EPT in its TLB until it is told to forget (INVEPT). After that no access passes
//! that the tables forbid, but one that was under way may still arrive until the processor has answered.
//!
//! Xen: `p2m_set_mem_access` changes the entry and flushes the EPT of all vCPUs' processors before the call returns: from its answer
//! on the new rights are in force.
//!
//! What this proves: a hypervisor in software must not lose an access between a vCPU's check and the access itself. The consumer takes
//! rights, has its answer, and from then on polls the page for changes; no vCPU may see what the consumer hides there while reads
//! are forbidden.
//!
//! Symbols: `COMMAND`, a page that vCPU 0 writes once: as long as the consumer answers that event without giving the right, the vCPU asks
//! again, and each time the consumer may change something. `RACED`, the page that the other vCPUs use: they read its first word, which
//! must be 0, and count in the word of their own number. Checkpoint 1 comes before the others start.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// What vCPU 0 asks by.
    COMMAND: 1
);
guest::pages!(
    /// What the others use.
    RACED: 1
);

static STOP: AtomicBool = AtomicBool::new(false);
static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// What was read while reads were forbidden.
static SEEN: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    if !(2..=8).contains(&smp::vcpus()) {
        skip!("{} vCPUs; a race has 2 to 8", smp::vcpus());
    }
    checkpoint(1, COMMAND.address(), RACED.address(), 0);
    smp::start(race);
    access::write(COMMAND.address(), 1);
    STOP.store(true, Ordering::Release);
    smp::join();
    let seen = SEEN.load(Ordering::Acquire);
    if seen != 0 {
        failure!("a read saw {seen:#x} while reads were forbidden");
    }
    println!("{} rounds", ROUNDS.load(Ordering::Acquire));
    verdict::success();
}

fn race(vcpu: usize) {
    let own = RACED.address() + vcpu as u64 * 8;
    let mut rounds = 0;
    while !STOP.load(Ordering::Acquire) {
        let found = access::read(RACED.address());
        if found != 0 {
            SEEN.store(found, Ordering::Release);
        }
        rounds += 1;
        access::write(own, rounds);
    }
    ROUNDS.fetch_add(rounds, Ordering::AcqRel);
}
