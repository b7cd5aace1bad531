//! One vCPU touches four pages, each in its way, in rounds; the scenario makes of it what it wants.
//!
//! Hardware, Xen: as the scenario says that uses it. The guest itself expects nothing of what it reads, since a scenario
//! may take the pages away for good, and so can show what other guests would call a fault.
//!
//! What this proves: nothing by itself.
//!
//! | symbol | what |
//! |---|---|
//! | `READ` | a page that is read |
//! | `WRITTEN` | a page that is written |
//! | `ADDED` | a page that is read and written at once |
//! | `CALLED` | a page of code that is called |
//!
//! Before checkpoint 1 each page is touched once in its way, so that it exists. Checkpoints 1 to 4 (argument: their number)
//! are each followed by a read, a write, an addition, a call. Checkpoint 5: end (arguments: what the last read, addition
//! and call gave).

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::{access, checkpoint, println, verdict};

guest::pages!(
    /// A page that is read.
    READ: 1
);
guest::pages!(
    /// A page that is written.
    WRITTEN: 1
);
guest::pages!(
    /// A page that is read and written at once.
    ADDED: 1
);

global_asm!(
    ".section .code_pages, \"ax\", @progbits",
    ".balign 4096",
    ".global CALLED",
    ".type CALLED, @object",
    "CALLED:",
    "mov eax, 0x63616c6c",
    "ret",
    ".balign 4096",
    ".size CALLED, 4096",
    ".text",
);

unsafe extern "C" {
    static CALLED: u8;
}

guest::main!(main);

fn main() {
    access::write(READ.address(), 0x7265_6164);
    let mut found = touch(0);
    for round in 1..5 {
        checkpoint(round, round, 0, 0);
        found = touch(round);
    }
    checkpoint(5, found[0], found[1], found[2]);
    println!("4 rounds");
    verdict::success();
}

fn touch(round: u64) -> [u64; 3] {
    let read = access::read(READ.address());
    access::write(WRITTEN.address(), round);
    let added = access::add(ADDED.address(), 1);
    let called = access::call((&raw const CALLED).addr() as u64);
    [read, added, called]
}
