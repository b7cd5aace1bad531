//! All vCPUs hit watched pages at once.
//!
//! Hardware: each vCPU that violates EPT leaves the guest by itself; violations of many vCPUs on one page are
//! independent of each other.
//!
//! Xen: all of them want a slot on one ring, which in `mem_event` has 64 and in `vm_event` 8, less when the consumer is
//! slow. The seed's predecessor checked for room and put the request later, so that several vCPUs saw the last free slot
//! and one request overwrote another; a vCPU that found no room was paused and, if the wake-up came before the pause,
//! never ran again. Claiming a slot first, and queueing in order of arrival, is the cure.
//!
//! What this proves: every event is delivered exactly once, nobody sleeps for ever, and the additions of all vCPUs are
//! all there, however few slots the ring has.
//!
//! Symbol `STORM`: 16 pages. Checkpoint 1, on vCPU 0 with the others waiting at a gate (arguments: address, bytes, number
//! of vCPUs): to be watched from here. Then every vCPU adds in each of 32 rounds to a word of its own, offset 8 times its
//! number, on page (round + vCPU) modulo 16. Waiting touches no watched page, so each vCPU's own sequence is fixed. When
//! all are done, vCPU 0 reads the words of all vCPUs, page by page. Checkpoint 2: end (argument: the grand total).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// The pages that are hit.
    STORM: 16
);

const PAGES: u64 = 16;
const ROUNDS: u64 = 32;

/// 1 when the storm may begin.
static GATE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    let vcpus = smp::vcpus();
    if vcpus < 2 {
        skip!("one vCPU is no storm");
    }
    smp::start(storm);
    checkpoint(1, STORM.address(), STORM.bytes(), vcpus as u64);
    GATE.store(1, Ordering::Release);
    storm(0);
    smp::join();
    let total = check(vcpus as u64);
    checkpoint(2, total, 0, 0);
    println!("{vcpus} vCPUs, {} additions, total {total:#x}", vcpus as u64 * ROUNDS);
    verdict::success();
}

fn storm(vcpu: usize) {
    smp::wait_for(&GATE, 1);
    let vcpu = vcpu as u64;
    for round in 0..ROUNDS {
        access::add(word((round + vcpu) % PAGES, vcpu), addend(round, vcpu));
    }
}

/// The word of `vcpu` on `page`.
fn word(page: u64, vcpu: u64) -> u64 {
    STORM.address() + page * PAGE_SIZE + vcpu * 8
}

/// What is added; no two additions of a vCPU are alike, so that one lost and another doubled do not cancel out.
fn addend(round: u64, vcpu: u64) -> u64 {
    1 << round | vcpu << 40
}

/// The sum of all words, each of which must be what its vCPU's rounds make it.
fn check(vcpus: u64) -> u64 {
    let mut total = 0;
    for page in 0..PAGES {
        for vcpu in 0..vcpus {
            let rounds = (0..ROUNDS).filter(|round| (round + vcpu) % PAGES == page);
            let expected: u64 = rounds.map(|round| addend(round, vcpu)).sum();
            let found = access::read(word(page, vcpu));
            if found != expected {
                failure!("vCPU {vcpu} on page {page}: {found:#x} instead of {expected:#x}");
            }
            total += found;
        }
    }
    total
}
