//! A device writes into memory.
//!
//! Hardware: DMA does not go through EPT but through the IOMMU, or through nothing: access rights of EPT do not stop a device.
//! A page that is not there cannot be written by anybody.
//!
//! Xen: its device model maps the guest's frames. A frame that is paged out is asked for first (the foreign caller is told to
//! try again), a frame that is watched is written without an event.
//!
//! What this proves: here devices are stopped on both. A paged-out page is populated, and then holds what the device wrote and,
//! beside it, what it held before; a watched one is reported, as foreign and without a linear address. And nothing
//! hangs: the device writes inside the vCPU's own port write, with QEMU's lock held.
//!
//! The device is QEMU's configuration interface (`fw_cfg`), which copies an item to the address in a descriptor in memory.
//!
//! Symbols: `WATCHED` and `PAGED`: one page each; `DESCRIPTOR`: what the device reads. Checkpoint 1: before it writes into
//! `WATCHED`. Checkpoint 2: before it writes into `PAGED`. Checkpoint 3: end.

#![no_std]
#![no_main]

use guest::{access, checkpoint, failure, fwcfg, println, skip, verdict};

guest::pages!(
    /// What is watched.
    WATCHED: 1
);
guest::pages!(
    /// What is paged out.
    PAGED: 1
);
guest::pages!(
    /// The device's instructions.
    DESCRIPTOR: 1
);

/// Where the device writes in each page.
const AT: u64 = 0x100;
const BESIDE: u64 = 0x800;
const CONTENT: u64 = 0x6265_7369_6465_2121;
/// The item with this number is the interface's signature.
const SIGNATURE: u16 = 0;

guest::main!(main);

fn main() {
    if !fwcfg::has_dma() {
        skip!("the configuration interface has no DMA");
    }
    for (number, page) in [(1, &WATCHED), (2, &PAGED)] {
        access::write(page.address() + BESIDE, CONTENT);
        checkpoint(number, page.address(), page.bytes(), 0);
        fwcfg::copy(SIGNATURE, 4, page.address() + AT, DESCRIPTOR.address());
        let [written, beside] = [AT, BESIDE].map(|offset| access::read(page.address() + offset));
        if written != u64::from(u32::from_le_bytes(*b"QEMU")) {
            failure!("the device wrote {written:#x}");
        }
        if beside != CONTENT {
            failure!("beside it there is {beside:#x}");
        }
    }
    checkpoint(3, 0, 0, 0);
    println!("the device wrote into both pages");
    verdict::success();
}
