//! Many equal pages, to which all vCPUs write at once.
//!
//! Hardware: each write to a page that is mapped read-only is a violation of its own, and vCPUs that meet one page at once violate
//! together.
//!
//! Xen: zeroed pages are what is found equal most, so that one frame is shown by very many. When the one whose frame it was is
//! written to, the others must keep it; when two write to one page, the second must find the first one's copy and not the shared
//! frame.
//!
//! What this proves: no write is lost and none is seen in another page, whatever was shared with what.
//!
//! Symbols: `FIRST`, one page; `MANY`, 511 pages; all equal. Checkpoint 1: they are filled. Every vCPU adds a number of its own
//! to a word of its own of each page, each beginning elsewhere. Checkpoint 2: end, all words right (arguments: pages, vCPUs).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// Whose memory stays.
    FIRST: 1
);
guest::pages!(
    /// Those that can be merged with it.
    MANY: 511
);

const PAGES: u64 = 512;
const VCPUS: usize = 8;
const FILLING: u64 = 0x7a65_726f;

/// 1 when all may write.
static GATE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    let vcpus = smp::vcpus();
    if vcpus > VCPUS {
        skip!("{vcpus} vCPUs; at most {VCPUS} have a word");
    }
    (0..PAGES).for_each(|page| (0..VCPUS).for_each(|vcpu| access::write(word(page, vcpu), FILLING)));
    smp::start(add);
    checkpoint(1, PAGES, vcpus as u64, 0);
    GATE.store(1, Ordering::Release);
    add(0);
    smp::join();
    (0..PAGES).for_each(|page| (0..VCPUS).for_each(|vcpu| check(page, vcpu, vcpus)));
    checkpoint(2, PAGES, vcpus as u64, 0);
    println!("{vcpus} vCPUs wrote to {PAGES} pages");
    verdict::success();
}

fn add(vcpu: usize) {
    smp::wait_for(&GATE, 1);
    for step in 0..PAGES {
        let page = (step + vcpu as u64 / 2 * PAGES / 4) % PAGES;
        access::add(word(page, vcpu), addend(page, vcpu));
    }
}

fn check(page: u64, vcpu: usize, vcpus: usize) {
    let due = FILLING + if vcpu < vcpus { addend(page, vcpu) } else { 0 };
    let found = access::read(word(page, vcpu));
    if found != due {
        failure!("page {page}, vCPU {vcpu}: {found:#x} instead of {due:#x}");
    }
}

fn word(page: u64, vcpu: usize) -> u64 {
    let start = if page == 0 { FIRST.address() } else { MANY.address() + (page - 1) * PAGE_SIZE };
    start + vcpu as u64 * 8
}

/// No two are alike.
fn addend(page: u64, vcpu: usize) -> u64 {
    (page + 1) << 32 | (vcpu as u64 + 1) << 56
}
