//! How long a touch of a page that was taken away takes.
//!
//! Hardware and Xen: as in `page_in`. From the touch to the instruction's end lies the whole walk: the fault, the request on
//! the ring, the pager's load and answer, the wake-up.
//!
//! What this measures: each touch by the time stamp counter, which under QEMU without a hypervisor is the host's. It proves
//! that each page comes back with its content.
//!
//! Symbol `TOUCHED`: 256 pages. Checkpoint 1: they are filled (arguments: their address and bytes); a pager evicts
//! them here. Each page's first word is read once, in order. Checkpoint 2: end (arguments, in ticks: the median touch, the
//! one that 9 in 10 are faster than, all touches with what lies between them).

#![no_std]
#![no_main]

use core::arch::x86_64::_rdtsc;

use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// What is evicted and touched.
    TOUCHED: 256
);

const PAGES: usize = 256;

guest::main!(main);

fn main() {
    for (number, page) in pages() {
        access::write(page, number);
    }
    let mut ticks = [0; PAGES];
    checkpoint(1, TOUCHED.address(), TOUCHED.bytes(), 0);

    let start = now();
    for ((number, page), ticks) in pages().zip(&mut ticks) {
        let before = now();
        let found = access::read(page);
        *ticks = now() - before;
        if found != number {
            failure!("page {number} came back with {found:#x}");
        }
    }
    let all = now() - start;

    ticks.sort_unstable();
    checkpoint(2, ticks[PAGES / 2], ticks[PAGES * 9 / 10], all);
    println!("{PAGES} pages touched, median {} ticks", ticks[PAGES / 2]);
    verdict::success();
}

/// The pages' numbers and addresses.
fn pages() -> impl Iterator<Item = (u64, u64)> {
    (0..).zip((TOUCHED.address()..TOUCHED.address() + TOUCHED.bytes()).step_by(4096))
}

fn now() -> u64 {
    // SAFETY: every x86-64 processor has the counter, and CR4.TSD is clear.
    unsafe { _rdtsc() }
}
