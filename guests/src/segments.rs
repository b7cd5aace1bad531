//! Descriptor tables, for guests that have their own: what all of them hold.

/// The runtime's own descriptors, with which a guest's table begins: none, 64-bit code, data.
pub const KERNEL: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// A table as `lgdt` and `lidt` take it: the number of its last byte, and where it lies.
#[repr(C, packed)]
#[derive(Debug, Clone, Copy)]
pub struct Pointer(pub u16, pub u64);

/// The two descriptors of a 64-bit task state of 104 bytes: available, present.
pub const fn task(at: u64) -> [u64; 2] {
    [0x67 | (at & 0xff_ffff) << 16 | 0x89 << 40 | (at >> 24 & 0xff) << 56, at >> 32]
}
