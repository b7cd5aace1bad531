//! QEMU's configuration device, used for two things: how many vCPUs there are, and as a device that does DMA.
//!
//! The ACPI tables would tell too, but microvm has none at the usual place and finding them takes a parser; this is two
//! port reads and the same on q35, pc and microvm.

use crate::{access, port};

const SELECTOR: u16 = 0x510;
const DATA: u16 = 0x511;
/// The number of vCPUs present, 16 bits, little endian.
const NB_CPUS: u16 = 0x05;

/// The number of vCPUs that QEMU was started with.
pub fn vcpus() -> usize {
    port::write_u16(SELECTOR, NB_CPUS);
    let low = port::read_u8(DATA);
    let high = port::read_u8(DATA);
    usize::from(u16::from_le_bytes([low, high]))
}

/// Features of the interface, 32 bits, little endian: bit 1 is DMA.
const FEATURES: u16 = 0x01;
const FEATURE_DMA: u8 = 1 << 1;
/// The descriptor's address, big endian, high half first; writing the low half starts the copy.
const DMA_HIGH: u16 = 0x514;
const DMA_LOW: u16 = 0x518;
/// In a descriptor's first word: read, select an item.
const READ: u32 = 1 << 1;
const SELECT: u32 = 1 << 3;

/// Whether the device can copy to memory by itself.
pub fn has_dma() -> bool {
    port::write_u16(SELECTOR, FEATURES);
    port::read_u8(DATA) & FEATURE_DMA != 0
}

/// Has the device copy the first bytes of an item to `to`, by a descriptor that it reads from `descriptor`. It is done when
/// this returns.
///
/// ```text
/// 0 u32 control: item << 16 | flags     4 u32 bytes     8 u64 address     all big endian
/// ```
pub fn copy(item: u16, bytes: u32, to: u64, descriptor: u64) {
    let control = u32::from(item) << 16 | READ | SELECT;
    access::write(descriptor, u64::from(control.swap_bytes()) | u64::from(bytes.swap_bytes()) << 32);
    access::write(descriptor + 8, to.swap_bytes());
    let [a, b, c, d, low @ ..] = descriptor.to_be_bytes();
    port::write_u32(DMA_HIGH, u32::from_le_bytes([a, b, c, d]));
    port::write_u32(DMA_LOW, u32::from_le_bytes(low));
}
