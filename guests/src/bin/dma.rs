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
//! The processor uses some memory by itself in the same thread, its tables among it. But it does not write to its IDT, and reads no more of
//! it than there are vectors, whatever the limit says: firmware leaves one of 64 KiB in force. So what is written there is the device's too.
//!
//! Symbols: `WATCHED` and `PAGED`: one page each; `DESCRIPTOR`: what the device reads; `VECTORS`: two pages that the IDT's limit
//! covers, of which the first holds it. Checkpoint 1: before it writes into `WATCHED`. Checkpoint 2: before it writes into `PAGED`.
//! Checkpoint 3: before it writes into both pages of `VECTORS`, the second first. Checkpoint 4: end.

#![no_std]
#![no_main]

use core::arch::asm;

use guest::page::PAGE_SIZE;
use guest::segments::Pointer;
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
guest::pages!(
    /// The vectors of this guest, and a page of the table behind them.
    VECTORS: 2
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
    move_vectors();
    checkpoint(3, VECTORS.address(), VECTORS.bytes(), 0);
    for at in [VECTORS.address() + PAGE_SIZE + AT, VECTORS.address() + BESIDE] {
        fwcfg::copy(SIGNATURE, 4, at, DESCRIPTOR.address());
        if access::read(at) & 0xffff_ffff != u64::from(u32::from_le_bytes(*b"QEMU")) {
            failure!("the device did not write at {at:#x}");
        }
    }
    checkpoint(4, 0, 0, 0);
    println!("the device wrote into all pages");
    verdict::success();
}

/// The IDT moves to the first page of `VECTORS`, and its limit is the end of the second.
fn move_vectors() {
    let mut old = Pointer(0, 0);
    // SAFETY: stores the table's place and limit there.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut old, options(nostack, preserves_flags)) };
    let Pointer(last, from) = old;
    for offset in (0..=u64::from(last)).step_by(8) {
        access::write(VECTORS.address() + offset, access::read(from + offset));
    }
    let last = u16::try_from(VECTORS.bytes() - 1).expect("two pages");
    let new = Pointer(last, VECTORS.address());
    // SAFETY: the table holds the same gates, and what it has no gates for is not present.
    unsafe { asm!("lidt [{}]", in(reg) &raw const new, options(readonly, nostack, preserves_flags)) };
}
