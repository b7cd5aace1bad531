//! The local APIC, used for waking the other vCPUs and for interrupting the first one.

use core::ptr;

/// Where it is after reset, inside the identity map.
const BASE: usize = 0xfee0_0000;
/// Spurious interrupt vector register; bit 8 switches the APIC on.
const SPURIOUS: usize = 0xf0;
/// End of interrupt.
const END: usize = 0xb0;
/// Interrupt command register, low half; writing it sends.
const COMMAND: usize = 0x300;
/// Destination shorthand: all but this one. No list of APIC ids is needed.
const ALL_OTHERS: u32 = 0b11 << 18;
const ASSERT: u32 = 1 << 14;
const INIT: u32 = 0b101 << 8;
const NMI: u32 = 0b100 << 8;
const STARTUP: u32 = 0b110 << 8;

/// Resets all other vCPUs and starts them in 16-bit mode at `entry`, a page boundary below 1 MiB.
///
/// INIT, then SIPI twice, as Intel's manual says (SDM 3A, 9.4.4); a vCPU that is already running ignores the second.
/// The manual's pauses between them are for silicon: QEMU keeps the order of what it was sent.
pub fn start_others(entry: u64) {
    let vector = u32::try_from(entry >> 12).expect("the entry is below 1 MiB");
    assert!(vector < 0x100, "a SIPI can only name a page below 1 MiB");
    begin();
    write(COMMAND, ALL_OTHERS | ASSERT | INIT);
    write(COMMAND, ALL_OTHERS | ASSERT | STARTUP | vector);
    write(COMMAND, ALL_OTHERS | ASSERT | STARTUP | vector);
}

/// Switches this vCPU's on, for interrupts.
pub fn begin() {
    write(SPURIOUS, 0x1ff);
}

/// The handler of an interrupt is over.
pub fn end_of_interrupt() {
    write(END, 0);
}

/// Sends vCPU 0, whose APIC [`start_others`] has switched on, an interrupt with this vector.
pub fn interrupt_first(vector: u8) {
    // The destination, in the command register's high half, is APIC id 0 after reset. Fixed delivery.
    write(COMMAND, ASSERT | u32::from(vector));
}

/// Sends vCPU 0 an NMI.
pub fn nmi_first() {
    write(COMMAND, ASSERT | NMI);
}

fn write(register: usize, value: u32) {
    // SAFETY: the APIC's page is identity mapped, and nothing but this file uses it.
    unsafe { ptr::write_volatile(ptr::with_exposed_provenance_mut::<u32>(BASE + register), value) };
}
