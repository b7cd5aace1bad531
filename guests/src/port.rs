//! I/O ports.

use core::arch::asm;

pub fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: touches no memory; the devices that guests use cannot harm them.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

pub fn write_u8(port: u16, value: u8) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

pub fn write_u16(port: u16, value: u16) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `read_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}
