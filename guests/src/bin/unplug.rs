//! A disk is unplugged while its request waits for the memory that it is to fill.
//!
//! Hardware: a device that is asked to go ends what it does, and then is off the bus. What it wrote until then is there.
//!
//! Xen: the device model maps the guest's frames. One that is paged out is asked for, and the device model waits; meanwhile the guest may
//! have the device taken away.
//!
//! What this proves: the device goes when the frame is back, with its request done; who holds the frame back delays the guest, and
//! nothing is lost.
//!
//! Symbols: `DATA`, which the disk fills. Checkpoint 1: before the request (argument: the address of `DATA`). Then the disk is told, and
//! the slot of the first port is ejected by the registers of an ICH9. Checkpoint 2: the disk is gone (argument: the first word of
//! `DATA`). The disk must take its request when it is told, not when QEMU gets to it (`ioeventfd=off`).

#![no_std]
#![no_main]

use guest::disk::{self, Disk, Transfer};
use guest::virtio_disk::VirtioDisk;
use guest::{access, checkpoint, failure, pci, port, println, skip, verdict};

guest::pages!(
    /// What the disk fills.
    DATA: 1
);
guest::pages!(
    /// The queue.
    QUEUE: guest::virtio::PAGES
);
guest::pages!(
    /// A request's first and last part.
    REQUEST: 1
);

const SECTOR: u64 = 3;
/// Hot-plug by ACPI: whose slots are meant, and which of them are to go.
const SELECT: u16 = 0xcd0;
const EJECT: u16 = 0xcc8;

guest::main!(main);
guest::needs!(disk);

fn main() {
    let find = || VirtioDisk::find(pci::BEHIND, &QUEUE, REQUEST.address());
    let Some(mut disk) = find() else { skip!("no disk by virtio behind a port that speaks the older protocol") };
    // So that there is something to page out.
    access::write(DATA.address(), 0);
    disk.prepare(Transfer::Read, SECTOR, DATA.address());
    checkpoint(1, DATA.address(), 0, 0);
    disk.offer();
    disk.begin();
    println!("the disk goes");
    port::write_u32(SELECT, 0);
    port::write_u32(EJECT, 1);
    if find().is_some() {
        failure!("the disk is still there");
    }
    disk::expect(DATA.address(), SECTOR);
    checkpoint(2, access::read(DATA.address()), 0, 0);
    println!("and its request was done");
    verdict::success();
}
