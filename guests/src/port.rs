//! I/O ports, and registers of devices in memory.

use core::arch::asm;

/// Reads a byte.
pub fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: touches no memory; the devices that guests use cannot harm them.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads two bytes.
pub fn read_u16(port: u16) -> u16 {
    let value;
    // SAFETY: as in `read_u8`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads four bytes.
pub fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `read_u8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes two bytes.
pub fn write_u16(port: u16, value: u16) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes four bytes.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// A device's register at a physical address, which the identity map covers.
pub fn read_register(address: u64) -> u32 {
    let value;
    // SAFETY: no memory of the guest's is there.
    unsafe { asm!("mov {:e}, [{}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)) };
    value
}

/// The same, written.
pub fn write_register(address: u64, value: u32) {
    // SAFETY: as above; what the device does to memory, it does where `page::Pages` are, which nobody holds a reference to.
    unsafe { asm!("mov [{}], {:e}", in(reg) address, in(reg) value, options(nostack, preserves_flags)) };
}
