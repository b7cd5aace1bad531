//! Devices by virtio's older protocol, of "virtio before 1.0": a device is told by ports what lies in queues in memory.
//!
//! ```text
//! descriptor  0 u64 address   8 u32 bytes   12 u16 flags   14 u16 the next one
//! available   0 u16 flags   2 u16 how many ever   4 u16 each: its first descriptor
//! used        0 u16 flags   2 u16 how many ever
//! ```
//! What is offered always begins with descriptor 0, so that one request is under way at a time.

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
/// With so many entries each part of a queue begins a page.
const ENTRIES: u64 = 256;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
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
    at: u64,
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

    /// Its queue with this number, in three pages from this address on.
    pub fn queue(self, number: u16, at: u64) -> Queue {
        port::write_u16(self.0 + offset::QUEUE_SELECT, number);
        if u64::from(port::read_u16(self.0 + offset::QUEUE_SIZE)) != ENTRIES {
            skip!("the device's queue has not {ENTRIES} entries");
        }
        port::write_u32(self.0 + offset::QUEUE_FRAME, u32::try_from(at >> 12).expect("below 4 GiB"));
        Queue { device: self, number, at, offered: 0 }
    }

    /// Its queues are complete.
    pub fn start(self) {
        port::write_u8(self.0 + offset::STATUS, SEEN_AND_DRIVEN | READY);
    }
}

impl Queue {
    /// Writes a descriptor; one that another follows is followed by the next.
    pub fn describe(&self, number: u64, address: u64, bytes: u64, flags: u64) {
        access::write(self.at + number * 16, address);
        access::write(self.at + number * 16 + 8, bytes | flags << 32 | (number + 1) << 48);
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
