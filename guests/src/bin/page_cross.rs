//! One access over the border of two pages, of which none, either or both are watched.
//!
//! Hardware: an access that crosses a page is translated for both pages, and nothing is stored before both are allowed.
//! A violation names one guest-physical address, the first that is forbidden; when that page is allowed and the
//! instruction tried again, the second may stop it again. So with both pages watched there are two events for one
//! instruction, and neither has half its bytes in memory.
//!
//! Xen: nothing special, which is the trap: each violation is an event of its own, with the offset and linear address
//! of the part on its page.
//!
//! What this proves: no event is missed because an access *starts* on an unwatched page, none is raised for a page that
//! is merely near, and all 8 bytes arrive.
//!
//! Symbols: `CROSS`, two pages; the left is at `CROSS`, the right at `CROSS`+0x1000. Checkpoints 1 to 4 are each followed by one
//! 8-byte write, 5 to 8 by one 8-byte read, at the border minus 7, 6, 5 and 4: (arguments: address of the left page,
//! address of the access.) Meant to be watched: after 1 and 5 none, 2 and 6 the left page, 3 and 7 the right, 4 and 8
//! both. Checkpoint 9: end. Nothing else touches the pages in between: each later write leaves the earlier one's first
//! byte alone, and the reads check them all.

#![no_std]
#![no_main]

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// The left page and the right page.
    CROSS: 2
);

/// How many bytes of each access lie on the left page.
const LEFT_BYTES: [u64; 4] = [7, 6, 5, 4];
/// What is written, in order; each byte tells its write and its place.
const WRITES: [u64; 4] = [0x1716_1514_1312_1110, 0x2726_2524_2322_2120, 0x3736_3534_3332_3130, 0x4746_4544_4342_4140];

guest::main!(main);

fn main() {
    let border = CROSS.address() + PAGE_SIZE;
    // What the 16 bytes around the border must be, kept apart from them.
    let mut expected = [0; 16];
    for (number, (left, value)) in (1..).zip(LEFT_BYTES.into_iter().zip(WRITES)) {
        checkpoint(number, CROSS.address(), border - left, 0);
        access::write(border - left, value);
        expected[place(left)..][..8].copy_from_slice(&value.to_le_bytes());
    }
    for (number, left) in (5..).zip(LEFT_BYTES) {
        checkpoint(number, CROSS.address(), border - left, 0);
        let found = access::read(border - left).to_le_bytes();
        if found != expected[place(left)..][..8] {
            failure!("{left} bytes left of the border: {found:x?} instead of {:x?}", &expected[place(left)..][..8]);
        }
    }
    checkpoint(9, 0, 0, 0);
    println!("4 writes and 4 reads over the border of {CROSS:?}");
    verdict::success();
}

/// Where in the 16 bytes around the border an access with `left` bytes on the left page begins.
fn place(left: u64) -> usize {
    8 - usize::try_from(left).expect("at most 8")
}
