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
//! Symbols: `WATCHED`: data; `PAGED`: data, with something beside it; `QUEUE`: descriptors in its first four pages (the last of them, or all,
//! as the device has entries), from `QUEUE+0x4000` on what is available, from `QUEUE+0x5000` on what is used. Before each transfer comes a checkpoint, whose third argument is the page that is meant.
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

use guest::virtio_disk::VirtioDisk;
use guest::{disk, pci, println, skip, verdict};

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
    QUEUE: guest::virtio::PAGES
);
guest::pages!(
    /// A request's first and last part.
    REQUEST: 1
);
guest::pages!(
    /// What is watched.
    WATCHED: 1
);

guest::main!(main);
guest::needs!(disk);

fn main() {
    let Some(mut disk) = VirtioDisk::find(pci::FIRST, &QUEUE, REQUEST.address()) else {
        skip!("no disk by virtio that speaks the older protocol")
    };
    let (watched, paged, plain) = (WATCHED.address(), PAGED.address(), PLAIN.address());
    disk::transfers(&mut disk, disk::Targets { watched, paged, plain, requests: QUEUE.address() });
    println!("every sector is where it belongs");
    verdict::success();
}
