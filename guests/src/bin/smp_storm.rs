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
//! What this proves: every event is delivered exactly once, no vCPU sleeps for ever, and the additions of all vCPUs are
//! all there, however few slots the ring has.
//!
//! Symbol `STORM`: 128 pages, 16 for each of up to 8 vCPUs. Checkpoint 1, on vCPU 0 with the others waiting at a gate
//! (arguments: address, bytes, number of vCPUs): to be watched from here. Then every vCPU adds, in each of 16 rounds, to
//! the first word of page 16 times its number plus the round, and once more to the second. No page is another vCPU's, and
//! waiting touches no watched page, so each vCPU's own sequence is fixed: one event a page, if the page is opened by its answer.
//! When all are done, vCPU 0 reads the words of all vCPUs, page by page. Checkpoint 2: end (argument: the grand total).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// The pages that are hit.
    STORM: 128
);

const ROUNDS: u64 = 16;
const VCPUS: usize = 8;

/// 1 when the storm may begin.
static GATE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    let vcpus = smp::vcpus();
    if !(1..=VCPUS).contains(&vcpus) {
        skip!("{vcpus} vCPUs; a storm has 1 to {VCPUS}");
    }
    smp::start(storm);
    checkpoint(1, STORM.address(), STORM.bytes(), vcpus as u64);
    GATE.store(1, Ordering::Release);
    storm(0);
    smp::join();
    let total = check(vcpus as u64);
    checkpoint(2, total, 0, 0);
    println!("{vcpus} vCPUs, {} additions, total {total:#x}", vcpus as u64 * ROUNDS * 2);
    verdict::success();
}

fn storm(vcpu: usize) {
    smp::wait_for(&GATE, 1);
    let vcpu = vcpu as u64;
    for round in 0..ROUNDS {
        access::add(word(round, vcpu, 0), addend(round, vcpu));
        access::add(word(round, vcpu, 1), addend(round, vcpu));
    }
}

/// The first or second word of a vCPU's page.
fn word(round: u64, vcpu: u64, which: u64) -> u64 {
    STORM.address() + (vcpu * ROUNDS + round) * PAGE_SIZE + which * 8
}

/// What is added; no two additions are alike, so that one lost and another doubled do not cancel out.
fn addend(round: u64, vcpu: u64) -> u64 {
    1 << round | vcpu << 40
}

/// The sum of all words, each of which must be what its vCPU's round made it.
fn check(vcpus: u64) -> u64 {
    let mut total = 0;
    for vcpu in 0..vcpus {
        for round in 0..ROUNDS {
            for which in 0..2 {
                let found = access::read(word(round, vcpu, which));
                if found != addend(round, vcpu) {
                    failure!("vCPU {vcpu}, round {round}: {found:#x} instead of {:#x}", addend(round, vcpu));
                }
                total += found;
            }
        }
    }
    total
}
