//! Many vCPUs touch at once, twice, while the first one stands aside and can be asked to wait for them.
//!
//! Hardware: each vCPU that violates EPT leaves the guest by itself; how many stand still at a time has no limit but their
//! number.
//!
//! Xen: a ring has 64 or 8 slots, so with one vCPU more than slots a vCPU has to queue before the request is written. In
//! 2012 the queue was joined by a second kind of sleepers, "blocked" vCPUs that were woken by another rule, and a ring
//! could stand empty with a vCPU asleep on it for ever.
//!
//! What this proves: depends on the scenario. vCPU 0 touches nothing, so it can stand at a checkpoint while all others
//! wait for answers, slots or consumers, and a scenario that acts there sees a settled picture.
//!
//! Symbols: `CROWD`, 128 pages, one for each vCPU by its number; `COMMON`, one page that all touch. Checkpoint 1: all pages
//! exist, and the others wait to be let go. Checkpoint 2: the others have been let go; each adds once to its own page, then once to the common
//! one. Checkpoint 3: all have. Checkpoint 4: they have been let go again and add to their own pages only.
//! Checkpoint 5: end, all sums right (arguments: vCPUs; what the common page holds).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// A page for each vCPU.
    CROWD: 128
);
guest::pages!(
    /// A page that all touch.
    COMMON: 1
);

/// How often the others have been let go.
static ROUND: AtomicUsize = AtomicUsize::new(0);
/// How many have finished, both rounds together.
static DONE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    let vcpus = smp::vcpus();
    if !(2..=128).contains(&vcpus) {
        skip!("{vcpus} vCPUs; a crowd has 2 to 128");
    }
    let others = vcpus - 1;
    // Pages that were never touched are no frames yet, and cannot be paged out.
    (0..vcpus as u64).for_each(|vcpu| access::write(own_page(vcpu), 0));
    access::write(COMMON.address(), 0);
    smp::start(touch);
    checkpoint(1, vcpus as u64, 0, 0);
    ROUND.store(1, Ordering::Release);
    checkpoint(2, 0, 0, 0);
    smp::wait_for(&DONE, others);
    checkpoint(3, 0, 0, 0);
    ROUND.store(2, Ordering::Release);
    checkpoint(4, 0, 0, 0);
    smp::wait_for(&DONE, 2 * others);
    smp::join();
    checkpoint(5, vcpus as u64, check(vcpus as u64), 0);
    println!("{others} vCPUs, two rounds");
    verdict::success();
}

fn touch(vcpu: usize) {
    let own = own_page(vcpu as u64);
    smp::wait_for(&ROUND, 1);
    access::add(own, 1);
    access::add(COMMON.address(), 1);
    DONE.fetch_add(1, Ordering::Release);
    smp::wait_for(&ROUND, 2);
    access::add(own, 1);
    DONE.fetch_add(1, Ordering::Release);
}

fn own_page(vcpu: u64) -> u64 {
    CROWD.address() + vcpu * PAGE_SIZE
}

/// What the common page holds; every page must hold what was added to it.
fn check(vcpus: u64) -> u64 {
    for vcpu in 1..vcpus {
        let found = access::read(own_page(vcpu));
        if found != 2 {
            failure!("vCPU {vcpu} added 1 twice and finds {found}");
        }
    }
    let common = access::read(COMMON.address());
    if common != vcpus - 1 {
        failure!("{} vCPUs added 1 to the common page, which holds {common}", vcpus - 1);
    }
    common
}
