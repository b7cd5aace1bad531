//! All vCPUs write to all of a stretch of memory, each page by every vCPU, each vCPU from another place on.
//!
//! Hardware: whichever vCPU comes first to a page meets what EPT says of it, and two may come at the same moment.
//!
//! Xen: with `n2rwx` the first access to a page makes one event, without a pause, and opens the page. Slots that were
//! checked for and then taken by another vCPU lost such events: with four vCPUs over all memory fewer came than pages
//! were touched.
//!
//! What this proves: as many events as pages, however many vCPUs, however slow the listener.
//!
//! Frames 0x800 to 0x17ff are swept, 16 MiB, which must be RAM that nothing else uses. Checkpoint 1: before (arguments: first
//! address, bytes). Checkpoint 2: the others have begun. Checkpoint 3:
//! after; all words are right.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, smp, verdict};

const FIRST: u64 = 0x80_0000;
const PAGES: u64 = 0x1000;

/// 1 when the sweep may begin.
static GO: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    smp::start(|vcpu| sweep(vcpu as u64));
    checkpoint(1, FIRST, PAGES * PAGE_SIZE, 0);
    GO.store(1, Ordering::Release);
    checkpoint(2, 0, 0, 0);
    sweep(0);
    smp::join();
    checkpoint(3, 0, 0, 0);
    check(smp::vcpus() as u64);
    println!("{} vCPUs over {PAGES} pages", smp::vcpus());
    verdict::success();
}

fn sweep(vcpu: u64) {
    smp::wait_for(&GO, 1);
    let from = vcpu * PAGES / smp::vcpus() as u64;
    for page in from..from + PAGES {
        access::write(word(page % PAGES, vcpu), page % PAGES + vcpu);
    }
}

/// Each vCPU has a word of its own in each page.
fn word(page: u64, vcpu: u64) -> u64 {
    FIRST + page * PAGE_SIZE + vcpu * 8
}

fn check(vcpus: u64) {
    for page in 0..PAGES {
        for vcpu in 0..vcpus {
            let found = access::read(word(page, vcpu));
            if found != page + vcpu {
                failure!("page {page}, vCPU {vcpu}: {found:#x} instead of {:#x}", page + vcpu);
            }
        }
    }
}
