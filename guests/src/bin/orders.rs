//! Does what it is told: reads and writes in some pages, as another program has written them into its memory.
//!
//! Hardware, Xen: as the test says that uses it. A random sequence of accesses cannot be written down beforehand; here it comes in
//! parts, each at a checkpoint.
//!
//! What this proves: nothing by itself.
//!
//! Symbols: `PAGES`, 16 pages, touched before the first checkpoint, zeroed; `ORDERS`, one page: how many orders (at most 255), then
//! for each two words: the offset in `PAGES`, a multiple of 8, with bit 0 for a write, or 2 for a reset of the machine; and the value,
//! which a read overwrites with what it found. Checkpoint 1, again and again: the orders are done, and new ones are wanted (argument: how often before). No orders are the end.

#![no_std]
#![no_main]

use guest::{access, checkpoint, port, println, verdict};

guest::pages!(
    /// Where it reads and writes.
    PAGES: 16
);
guest::pages!(
    /// What it is to do.
    ORDERS: 1
);

const MOST: u64 = 255;
const RESET: u64 = 2;

guest::main!(main);

fn main() {
    (0..PAGES.bytes()).step_by(4096).for_each(|offset| access::write(PAGES.address() + offset, 0));
    access::write(ORDERS.address(), 0);
    let mut rounds = 0;
    loop {
        checkpoint(1, rounds, 0, 0);
        let count = access::read(ORDERS.address()).min(MOST);
        if count == 0 {
            break;
        }
        (0..count).for_each(|number| obey(ORDERS.address() + 16 + number * 16));
        access::write(ORDERS.address(), 0);
        rounds += 1;
    }
    println!("{rounds} rounds");
    verdict::success();
}

fn obey(order: u64) {
    let what = access::read(order);
    if what == RESET {
        // The chipset's reset control: a hard reset.
        port::write_u8(0xcf9, 6);
        loop {
            core::hint::spin_loop();
        }
    }
    let address = PAGES.address() + (what & !7) % PAGES.bytes();
    if what & 1 != 0 {
        access::write(address, access::read(order + 8));
    } else {
        access::write(order + 8, access::read(address));
    }
}
