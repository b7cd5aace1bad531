//! One linear address that comes to mean another frame.
//!
//! Hardware: the processor keeps translations until it is told to forget them: one page by INVLPG, all but the
//! global ones by a write to CR3, these too by a change of CR4.PGE. (INVPCID and PCIDs are not among what QEMU's TCG has.)
//!
//! Xen: leaves all that to the processor; the rights of a violation are those of the frame that the access really reaches.
//!
//! What this proves: a cache of linear pages that may be touched must be emptied at each of these. At the start of a case the page at
//! the 1 TiB line means `OPEN`, and is read, so that it is known; then it is made to mean `WATCHED` in the case's way, and read again.
//!
//! Symbols: `OPEN`, `WATCHED`. Checkpoint 1 comes before each case (the third argument is its function), checkpoint 2 after it.

#![no_std]
#![no_main]

use guest::{access, other_frame, println, verdict};

guest::pages!(
    /// May be read.
    OPEN: 1
);
guest::pages!(
    /// Another address space's tables, from the first level to the last.
    OTHER: 4
);
guest::pages!(
    /// Is watched.
    WATCHED: 1
);

guest::ways_to_another_frame!("mov rax, [rdi]");

const CLOSED: u64 = 0x77;

guest::main!(main);

fn main() {
    access::write(WATCHED.address(), CLOSED);
    other_frame::go(
        &WAYS,
        OTHER.address(),
        |page| access::read(page),
        [(OPEN.address(), 0), (WATCHED.address(), CLOSED)],
    );
    println!("{} cases", WAYS.len());
    verdict::success();
}
