//! PCI configuration space by the two ports that every PC has: the first bus, and some behind its bridges, as the firmware numbered them.

use crate::port;
use core::ops::Range;

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
const CLASS: u32 = 8;
const COMMAND: u32 = 4;
/// Answers at ports and in memory, and uses memory by itself.
const ALL_ON: u32 = 7;

/// Functions of one bus.
const BUS: u32 = 256;
/// The first bus.
pub const FIRST: Range<u32> = 0..1;
/// The buses behind bridges that are looked at.
pub const BEHIND: Range<u32> = 1..4;

/// A device's function.
#[derive(Debug, Clone, Copy)]
pub struct Device(u32);

/// The first function of these buses with this identity (vendor in the low half, device in the high).
pub fn by_identity(buses: Range<u32>, identity: u32) -> Option<Device> {
    functions(buses).find(|device| device.word(0) == identity)
}

/// The first function of the first bus of this class, with subclass and programming interface: `0xCCSSPP`.
pub fn by_class(class: u32) -> Option<Device> {
    devices().find(|device| device.word(CLASS) >> 8 == class)
}

/// All functions of the first bus that are there.
pub fn devices() -> impl Iterator<Item = Device> {
    functions(FIRST).filter(|device| device.word(0) != u32::MAX)
}

fn functions(buses: Range<u32>) -> impl Iterator<Item = Device> {
    (buses.start * BUS..buses.end * BUS).map(|function| Device(function << 8))
}

impl Device {
    /// A register of its configuration.
    pub fn word(self, register: u32) -> u32 {
        port::write_u32(ADDRESS, ENABLE | self.0 | register);
        port::read_u32(DATA)
    }

    /// Writes a register of its configuration.
    pub fn set_word(self, register: u32, value: u32) {
        port::write_u32(ADDRESS, ENABLE | self.0 | register);
        port::write_u32(DATA, value);
    }

    /// Lets it answer and use memory.
    pub fn switch_on(self) {
        self.set_word(COMMAND, self.word(COMMAND) & 0xffff | ALL_ON);
    }

    /// Base address register `number`, as the firmware set it, without its flags.
    pub fn base(self, number: u32) -> u32 {
        let base = self.word(0x10 + number * 4);
        if base & 1 != 0 { base & !3 } else { base & !0xf }
    }
}
