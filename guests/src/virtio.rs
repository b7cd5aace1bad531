//! Devices by virtio's older protocol, of "virtio before 1.0": a device is told by ports what lies in queues in memory.
//!
//! ```text
//! descriptor  0 u64 address   8 u32 bytes   12 u16 flags   14 u16 the next one
//! available   0 u16 flags   2 u16 how many ever   4 u16 each: its first descriptor
//! used        0 u16 flags   2 u16 how many ever
//! ```
//! What is offered always begins with descriptor 0, so that one request is under way at a time.

use crate::page::Pages;
use crate::{access, pci, port, skip};
use core::ops::Range;

/// Ports from the device's first on.
mod offset {
    pub const QUEUE_FRAME: u16 = 8;
    pub const QUEUE_SIZE: u16 = 12;
    pub const QUEUE_SELECT: u16 = 14;
    pub const NOTIFY: u16 = 16;
    pub const STATUS: u16 = 18;
}
const SEEN_AND_DRIVEN: u8 = 3;
const READY: u8 = 4;
/// With a multiple of so many entries what is available begins a page; the device says how many it has.
const ENTRIES_OF_A_PAGE: u64 = 256;
const MOST_ENTRIES: u64 = 1024;
/// What is available lies here in a queue's pages, however many descriptors stand before it, and what is used on the next page.
const AVAILABLE: u64 = MOST_ENTRIES / ENTRIES_OF_A_PAGE * 0x1000;
const USED: u64 = AVAILABLE + 0x1000;
/// The pages of a queue: descriptors, what is available, what is used (8 bytes an entry and 6 before the first).
pub const PAGES: usize = 8;
/// As many pages as a queue needs; with fewer its parts would lie in the next static.
pub type QueuePages = Pages<PAGES>;
/// Flags of a descriptor: another one follows; the device writes there.
pub const NEXT: u64 = 1;
/// See [`NEXT`].
pub const DEVICE_WRITES: u64 = 2;

/// A device, by its first port.
#[derive(Debug, Clone, Copy)]
pub struct Device(u16);

/// One of a device's queues, and how much was ever offered.
#[derive(Debug)]
pub struct Queue {
    device: Device,
    number: u16,
    /// Its pages.
    at: u64,
    /// Its descriptors, right before what is available.
    descriptors: u64,
    offered: u64,
}

impl Device {
    /// The device of these buses with this identity (vendor in the low half), reset.
    pub fn find(buses: Range<u32>, identity: u32) -> Option<Device> {
        let device = pci::by_identity(buses, identity)?;
        device.switch_on();
        let base = u16::try_from(device.base(0)).ok()?;
        port::write_u8(base + offset::STATUS, 0);
        port::write_u8(base + offset::STATUS, SEEN_AND_DRIVEN);
        Some(Device(base))
    }

    /// Its queue with this number, in these pages. The device chooses the number of entries: QEMU 10.0.2 has 256,
    /// QEMU 10.0.13 has 1024.
    pub fn queue(self, number: u16, pages: &QueuePages) -> Queue {
        let at = pages.address();
        port::write_u16(self.0 + offset::QUEUE_SELECT, number);
        let entries = u64::from(port::read_u16(self.0 + offset::QUEUE_SIZE));
        if entries == 0 || entries % ENTRIES_OF_A_PAGE != 0 || entries > MOST_ENTRIES {
            skip!(
                "the device's queue has {entries} entries, not a multiple of {ENTRIES_OF_A_PAGE} up to {MOST_ENTRIES}"
            );
        }
        let descriptors = at + AVAILABLE - entries / ENTRIES_OF_A_PAGE * 0x1000;
        port::write_u32(self.0 + offset::QUEUE_FRAME, u32::try_from(descriptors >> 12).expect("below 4 GiB"));
        Queue { device: self, number, at, descriptors, offered: 0 }
    }

    /// Its queues are complete.
    pub fn start(self) {
        port::write_u8(self.0 + offset::STATUS, SEEN_AND_DRIVEN | READY);
    }
}

impl Queue {
    /// Writes a descriptor; one that another follows is followed by the next.
    pub fn describe(&self, number: u64, address: u64, bytes: u64, flags: u64) {
        access::write(self.descriptors + number * 16, address);
        access::write(self.descriptors + number * 16 + 8, bytes | flags << 32 | (number + 1) << 48);
    }

    /// Makes the request visible. The device looks once when it starts, and later only when it is told.
    pub fn offer(&mut self) {
        self.offered += 1;
        // Every entry names the first descriptor.
        access::write(self.at + AVAILABLE, (self.offered & 0xffff) << 16);
    }

    /// Tells the device.
    pub fn tell(&self) {
        port::write_u16(self.device.0 + offset::NOTIFY, self.number);
    }

    /// Waits until the device is done with all that was offered.
    pub fn wait(&self) {
        while access::read(self.at + USED) >> 16 & 0xffff != self.offered & 0xffff {}
    }
}
