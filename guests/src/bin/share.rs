//! Two equal pages, read and then written, by the vCPU and by a device.
//!
//! Hardware: two guest frames may lead to one frame of the host as long as neither may be written; the first write is an EPT
//! violation, and the owner of the page tables makes a copy.
//!
//! Xen: a toolstack that finds equal frames nominates both, compares them and shares them. Reads go on as before. A write unshares:
//! the writer gets a frame of its own with the old content, and the others keep theirs. Where there is no memory for the copy the
//! vCPU waits for it; a mapper of the frame gets an error.
//!
//! What this proves: whatever is done at its checkpoints, both pages hold what a machine without sharing would hold, in every word.
//!
//! Symbols: `KEPT` and `GIVEN`, one page each; `DESCRIPTOR`, what the device (`fw_cfg`, as in `dma`) reads. Checkpoint 1: both
//! pages are filled and equal (arguments: their addresses). Both are read. Checkpoint 2 (arguments: what was read). The vCPU writes
//! to `GIVEN`, then both are checked. Checkpoint 3. It writes the same to `KEPT`: they are equal again. Checkpoint 4. The device
//! writes to `KEPT`; both are checked. Checkpoint 5: end (arguments: the written words of both).

#![no_std]
#![no_main]

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, fwcfg, println, skip, verdict};

guest::pages!(
    /// Whose memory stays.
    KEPT: 1
);
guest::pages!(
    /// Who gives its own back.
    GIVEN: 1
);
guest::pages!(
    /// The device's instructions.
    DESCRIPTOR: 1
);

/// Where the vCPU writes, and what.
const AT: u64 = 0x10;
const NEW: u64 = 0x6e65_7721;
/// Where the device writes, and what: the interface's signature.
const DEVICE_AT: u64 = 0x100;
const SIGNATURE: u16 = 0;

guest::main!(main);

fn main() {
    if !fwcfg::has_dma() {
        skip!("the configuration interface has no DMA");
    }
    let (kept, given) = (KEPT.address(), GIVEN.address());
    access::write(DESCRIPTOR.address(), 0);
    for offset in offsets() {
        access::write(kept + offset, old(offset));
        access::write(given + offset, old(offset));
    }
    checkpoint(1, kept, given, 0);
    checkpoint(2, access::read(kept + AT), access::read(given + AT), 0);
    access::write(given + AT, NEW);
    check("KEPT", kept, old);
    check("GIVEN", given, with_new);
    checkpoint(3, 0, 0, 0);
    access::write(kept + AT, NEW);
    checkpoint(4, 0, 0, 0);
    fwcfg::copy(SIGNATURE, 4, kept + DEVICE_AT, DESCRIPTOR.address());
    check("KEPT", kept, with_signature);
    check("GIVEN", given, with_new);
    checkpoint(5, access::read(kept + DEVICE_AT), access::read(given + DEVICE_AT), 0);
    println!("both pages hold what was written to them");
    verdict::success();
}

fn offsets() -> impl Iterator<Item = u64> {
    (0..PAGE_SIZE).step_by(8)
}

fn old(offset: u64) -> u64 {
    0x0101_0101_0101_0101 * (offset / 8 % 251)
}

fn with_new(offset: u64) -> u64 {
    if offset == AT { NEW } else { old(offset) }
}

fn with_signature(offset: u64) -> u64 {
    let (low, signature) = (0xffff_ffff, u64::from(u32::from_le_bytes(*b"QEMU")));
    if offset == DEVICE_AT { old(offset) & !low | signature } else { with_new(offset) }
}

fn check(name: &str, page: u64, due: fn(u64) -> u64) {
    for offset in offsets() {
        let found = access::read(page + offset);
        if found != due(offset) {
            failure!("{name} holds {found:#x} at {offset:#x} where {:#x} is due", due(offset));
        }
    }
}
