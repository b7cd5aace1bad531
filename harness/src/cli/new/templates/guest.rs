//! Replace this by a page of prose: what the hardware does, what is to be shown, which symbols and checkpoints there are.
//!
//! Symbol `WATCHED`: one page. Checkpoint 1: before the accesses. Checkpoint 2: end.

#![no_std]
#![no_main]

use guest::{access, checkpoint, println, verdict};

guest::pages!(
    /// The page that the scenario watches.
    WATCHED: 1
);

guest::main!(main);

fn main() {
    let address = WATCHED.address();
    checkpoint(1, address, WATCHED.bytes(), 0);
    access::write(address + 0x10, 42);
    let found = access::read(address + 0x10);
    println!("NAME: read {found} back");
    checkpoint(2, found, 0, 0);
    if found != 42 {
        verdict::finish(verdict::Verdict::Failure, format_args!("read {found} where 42 is due"));
    }
    verdict::success();
}
