//! The disk that the harness makes: every eight bytes of it say which they are.

use crate::{access, failure};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// The eight bytes with this number, counted from the disk's first.
pub const fn word(number: u64) -> u64 {
    0xd15c_0000_0000_0000 | number
}

/// Fails where memory does not hold this sector.
pub fn expect(address: u64, sector: u64) {
    for at in 0..SECTOR / 8 {
        let (found, due) = (access::read(address + at * 8), word(sector * SECTOR / 8 + at));
        if found != due {
            failure!("sector {sector}, byte {:#x}: {found:#x} instead of {due:#x}", at * 8);
        }
    }
}

/// Writes what this sector holds into memory.
pub fn fill(address: u64, sector: u64) {
    for at in 0..SECTOR / 8 {
        access::write(address + at * 8, word(sector * SECTOR / 8 + at));
    }
}
