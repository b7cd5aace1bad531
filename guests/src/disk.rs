//! The disk that the harness makes: every eight bytes of it say which they are.

use crate::{access, checkpoint, failure};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// The eight bytes with this number, counted from the disk's first.
const fn word(number: u64) -> u64 {
    0xd15c_0000_0000_0000 | number
}

/// Where data lies in its page.
const AT: u64 = 0x200;
/// Where something else lies there.
const BESIDE: u64 = 0x800;
const CONTENT: u64 = 0x6265_7369_6465_2121;

/// Which way a sector goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// From the disk into memory.
    Read,
    /// From memory onto the disk.
    Write,
}

/// A disk that works by DMA.
pub trait Disk {
    /// Writes the request for one sector into memory.
    fn prepare(&mut self, transfer: Transfer, sector: u64, address: u64);

    /// Makes the request visible to the device, where that is another thing than telling it.
    fn offer(&mut self) {}

    /// Tells the device, and returns when it is done.
    fn tell(&mut self);
}

/// The pages that are meant before each transfer.
#[derive(Debug, Clone, Copy)]
pub struct Targets {
    /// Data, for sectors 3, 4 and onto 5.
    pub watched: u64,
    /// Data, for sector 6, with something beside it that must stay.
    pub paged: u64,
    /// Data that nobody watches, for sector 5.
    pub plain: u64,
    /// What the device reads of its requests.
    pub requests: u64,
}

/// Transfers between checkpoints 1 to 6, whose third argument is the page that is meant; every sector must be where it belongs.
pub fn transfers(disk: &mut impl Disk, Targets { watched, paged, plain, requests }: Targets) {
    let run = |disk: &mut _, number: u64, (transfer, sector, page): (Transfer, u64, u64)| {
        Disk::prepare(disk, transfer, sector, page + AT);
        checkpoint(number, 0, 0, page);
        Disk::offer(disk);
        Disk::tell(disk);
    };
    for (number, sector) in [(1, 3), (2, 4)] {
        run(disk, number, (Transfer::Read, sector, watched));
        expect(watched + AT, sector);
    }
    fill(watched + AT, 1);
    run(disk, 3, (Transfer::Write, 5, watched));
    access::write(paged + BESIDE, CONTENT);
    run(disk, 4, (Transfer::Read, 6, paged));
    expect(paged + AT, 6);
    if access::read(paged + BESIDE) != CONTENT {
        failure!("beside it there is {:#x}", access::read(paged + BESIDE));
    }
    disk.prepare(Transfer::Read, 5, plain + AT);
    disk.offer();
    checkpoint(5, 0, 0, requests);
    disk.tell();
    expect(plain + AT, 1);
    checkpoint(6, 0, 0, 0);
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
fn fill(address: u64, sector: u64) {
    for at in 0..SECTOR / 8 {
        access::write(address + at * 8, word(sector * SECTOR / 8 + at));
    }
}
