//! A disk by virtio reads into memory, and writes from it.
//!
//! Hardware: there is none. Driver and device share a queue in memory; the driver writes to a port when there is something in it.
//!
//! Xen: a guest with such a device has its frames mapped by the device model. A frame that is paged out is asked for first
//! (the foreign caller is told to try again), a frame that is watched is used without an event.
//!
//! What this proves: here a device is stopped on both, while the vCPU runs on. QEMU serves the queue in a thread of its own and copies
//! the data in a worker's system call: each is seen as foreign, before it happens, and the disk's content is right in the end.
//!
//! Symbols: `WATCHED`: data; `PAGED`: data, with something beside it; `QUEUE`: descriptors, then what is available, then what
//! is used, a page each. Before each transfer comes a checkpoint, whose third argument is the page that is meant.
//!
//! | checkpoint | transfer |
//! |---|---|
//! | 1, 2 | sector 3, then 4, into `WATCHED` |
//! | 3 | `WATCHED` onto sector 5 |
//! | 4 | sector 6 into `PAGED` |
//! | 5 | sector 5 into a page that is not meant, by the queue in `QUEUE` |
//! | 6 | end |

#![no_std]
#![no_main]

use guest::disk::{self, Disk, Transfer};
use guest::{access, failure, pci, port, println, skip, verdict};

guest::pages!(
    /// What is paged out.
    PAGED: 1
);
guest::pages!(
    /// Neither watched nor paged out.
    PLAIN: 1
);
guest::pages!(
    /// The queue.
    QUEUE: 3
);
guest::pages!(
    /// A request's first and last part.
    REQUEST: 1
);
guest::pages!(
    /// What is watched.
    WATCHED: 1
);

/// The disk that also speaks the older protocol, of "virtio before 1.0".
const VIRTIO_DISK: u32 = 0x1001_1af4;
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
/// With so many entries each part of the queue begins a page.
const ENTRIES: u64 = 256;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Flags of a descriptor.
const NEXT: u64 = 1;
const DEVICE_WRITES: u64 = 2;
const READ: u64 = 0;
const WRITE: u64 = 1;
/// Where a request's result lies; 0 is success.
const RESULT: u64 = 0x100;

guest::main!(main);

fn main() {
    let Some(mut disk) = VirtioDisk::find() else { skip!("no disk by virtio that speaks the older protocol") };
    let (watched, paged, plain) = (WATCHED.address(), PAGED.address(), PLAIN.address());
    disk::transfers(&mut disk, disk::Targets { watched, paged, plain, requests: QUEUE.address() });
    println!("every sector is where it belongs");
    verdict::success();
}

/// The device by its first port, and how many requests it got.
struct VirtioDisk(u16, u64);

impl VirtioDisk {
    fn find() -> Option<VirtioDisk> {
        let device = pci::by_identity(VIRTIO_DISK)?;
        device.switch_on();
        let base = u16::try_from(device.base(0)).ok()?;
        port::write_u8(base + offset::STATUS, 0);
        port::write_u8(base + offset::STATUS, SEEN_AND_DRIVEN);
        port::write_u16(base + offset::QUEUE_SELECT, 0);
        if u64::from(port::read_u16(base + offset::QUEUE_SIZE)) != ENTRIES {
            skip!("the disk's queue has not {ENTRIES} entries");
        }
        let frame = u32::try_from(QUEUE.address() >> 12).expect("below 4 GiB");
        port::write_u32(base + offset::QUEUE_FRAME, frame);
        port::write_u8(base + offset::STATUS, SEEN_AND_DRIVEN | READY);
        Some(VirtioDisk(base, 0))
    }
}

impl Disk for VirtioDisk {
    /// ```text
    /// descriptor  0 u64 address   8 u32 bytes   12 u16 flags   14 u16 the next one
    /// available   0 u16 flags   2 u16 how many ever   4 u16 each: its first descriptor
    /// used        0 u16 flags   2 u16 how many ever
    /// request     0 u32 kind   4 u32 0   8 u64 sector
    /// ```
    fn prepare(&mut self, transfer: Transfer, sector: u64, address: u64) {
        let kind = if transfer == Transfer::Write { WRITE } else { READ };
        let (queue, request) = (QUEUE.address(), REQUEST.address());
        let data = if kind == READ { NEXT | DEVICE_WRITES } else { NEXT };
        let parts = [(request, 16, NEXT), (address, disk::SECTOR, data), (request + RESULT, 1, DEVICE_WRITES)];
        for (number, (address, bytes, flags)) in (0..).zip(parts) {
            access::write(queue + number * 16, address);
            access::write(queue + number * 16 + 8, bytes | flags << 32 | (number + 1) << 48);
        }
        access::write(request, kind);
        access::write(request + 8, sector);
        access::write(request + RESULT, 0xff);
    }

    /// The device looks once when it starts, and later only when it is told.
    fn offer(&mut self) {
        self.1 += 1;
        // Every entry names the first descriptor.
        access::write(QUEUE.address() + AVAILABLE, self.1 << 16);
    }

    fn tell(&mut self) {
        port::write_u16(self.0 + offset::NOTIFY, 0);
        while access::read(QUEUE.address() + USED) >> 16 & 0xffff != self.1 {}
        let result = access::read(REQUEST.address() + RESULT) & 0xff;
        if result != 0 {
            failure!("the disk reports {result:#x}");
        }
    }
}
