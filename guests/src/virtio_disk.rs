//! A disk by virtio's older protocol, with one request at a time.

use crate::disk::{Disk, SECTOR, Transfer};
use crate::virtio::{DEVICE_WRITES, Device, NEXT, Queue, QueuePages};
use crate::{access, failure};
use core::ops::Range;

/// The disk that also speaks the older protocol.
const IDENTITY: u32 = 0x1001_1af4;
const READ: u64 = 0;
const WRITE: u64 = 1;
/// Where a request's result lies; 0 is success.
const RESULT: u64 = 0x100;

/// The disk by its only queue, and where a request's first and last part lie.
#[derive(Debug)]
pub struct VirtioDisk {
    queue: Queue,
    request: u64,
}

impl VirtioDisk {
    /// The disk of these buses, if there is one, with its queue and its request in these pages.
    pub fn find(buses: Range<u32>, queue: &QueuePages, request: u64) -> Option<VirtioDisk> {
        let device = Device::find(buses, IDENTITY)?;
        let queue = device.queue(0, queue);
        device.start();
        Some(VirtioDisk { queue, request })
    }

    /// Tells the device, and does not wait for it.
    pub fn begin(&self) {
        self.queue.tell();
    }
}

impl Disk for VirtioDisk {
    /// ```text
    /// request  0 u32 kind   4 u32 0   8 u64 sector
    /// ```
    fn prepare(&mut self, transfer: Transfer, sector: u64, address: u64) {
        let kind = if transfer == Transfer::Write { WRITE } else { READ };
        let data = if kind == READ { NEXT | DEVICE_WRITES } else { NEXT };
        self.queue.describe(0, self.request, 16, NEXT);
        self.queue.describe(1, address, SECTOR, data);
        self.queue.describe(2, self.request + RESULT, 1, DEVICE_WRITES);
        access::write(self.request, kind);
        access::write(self.request + 8, sector);
        access::write(self.request + RESULT, 0xff);
    }

    fn offer(&mut self) {
        self.queue.offer();
    }

    fn tell(&mut self) {
        self.begin();
        self.queue.wait();
        let result = access::read(self.request + RESULT) & 0xff;
        if result != 0 {
            failure!("the disk reports {result:#x}");
        }
    }
}
