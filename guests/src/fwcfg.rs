//! QEMU's configuration device, used for one thing: how many vCPUs there are.
//!
//! The ACPI tables would tell too, but microvm has none at the usual place and finding them takes a parser; this is two
//! port reads and the same on q35, pc and microvm.

use crate::port;

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
