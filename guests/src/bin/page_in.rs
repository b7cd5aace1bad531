//! Pages filled, taken away, and read again: the sum must be right.
//!
//! Hardware: an EPT entry that is not present stops the vCPU at the touch, whatever the touch was. Nothing tells the
//! guest that its page was gone.
//!
//! Xen: a pager nominates a frame (it may no longer be used by others), copies it, evicts it (the frame is freed).
//! `p2m_mem_paging_populate` puts a request on the paging ring at the next touch, the pager loads the content into a
//! fresh frame (prep), answers, and the vCPU is resumed. Early versions of the interface could lose a page that was
//! touched between nominate and evict, or answer a vCPU twice.
//!
//! What this proves: content survives eviction, word for word; a page that came back can be written; and each page is
//! asked for once, in the order of first touch, since the vCPU stops there and then.
//!
//! Symbol `PAGES`: 64 pages. Checkpoint 1: they are filled (arguments: their address and bytes); a pager evicts
//! them here. The guest then reads every word from the first to the last, writes every word anew in the same order,
//! reads again. Checkpoint 2: end (arguments: the two sums).

#![no_std]
#![no_main]

use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// What is filled, evicted and summed.
    PAGES: 64
);

const SEEDS: [u64; 2] = [0x6d65_6d5f_6576_656e, 0x7061_6765_5f69_6e21];

guest::main!(main);

fn main() {
    fill(SEEDS[0]);
    checkpoint(1, PAGES.address(), PAGES.bytes(), 0);
    let first = sum(SEEDS[0]);
    println!("read {} pages back, sum {first:#018x}", PAGES.bytes() / 4096);
    fill(SEEDS[1]);
    let second = sum(SEEDS[1]);
    println!("wrote them anew, sum {second:#018x}");
    checkpoint(2, first, second, 0);
    verdict::success();
}

/// The words that belong into the pages, with their addresses: Knuth's MMIX generator.
fn pattern(seed: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = PAGES.address();
    let mut word = seed;
    (first..first + PAGES.bytes()).step_by(8).map(move |address| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (address, word)
    })
}

fn fill(seed: u64) {
    for (address, word) in pattern(seed) {
        access::write(address, word);
    }
}

/// The sum of all words as found. The first that is wrong is a failure that names it.
fn sum(seed: u64) -> u64 {
    pattern(seed).fold(0, |sum: u64, (address, word)| {
        let found = access::read(address);
        if found != word {
            failure!("at {address:#x}, page {}: {found:#x} instead of {word:#x}", (address - PAGES.address()) / 4096);
        }
        sum.wrapping_add(found)
    })
}
