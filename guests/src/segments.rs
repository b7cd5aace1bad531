//! Descriptor tables, for guests that have their own: what all of them hold, and whole ones for guests whose code may be anywhere when an
//! exception comes.

use core::arch::asm;

use crate::access;

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

/// The selector of the task state in a table that [`with_stack_for_gates`] makes; the further ones follow it.
pub const TASK: u64 = 0x18;
/// The stack of the task state that gates are told to take: the first of seven.
const FIRST_STACK: u64 = 1 << 32;

/// Fills the pages of a table and of a task state, and takes them: the runtime's segments, the task state, and then these. All gates of
/// exceptions take the stack with this top, wherever the stack pointer is; ports are closed to ring 3.
pub fn with_stack_for_gates(table: u64, task_state: u64, top: u64, more: &[u64]) {
    let all = KERNEL.into_iter().chain(task(task_state)).chain(more.iter().copied());
    for (offset, segment) in (0..).step_by(8).zip(all) {
        access::write(table + offset, segment);
    }
    // The first stack for gates lies at offset 36 of the task state.
    access::write(task_state + 32, top << 32);
    access::write(task_state + 40, top >> 32);
    access::write(task_state + 96, 0x68 << 48);
    let (segments, mut gates) = (Pointer(0xfff, table), Pointer(0, 0));
    // SAFETY: the tables are complete and the caller's for ever, and nothing needs a local one.
    unsafe {
        asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const segments, in(reg) TASK, options(nostack, preserves_flags));
        // After a reset it is as large as can be, and lies at 0.
        asm!("lldt {:x}", in(reg) 0, options(nostack, preserves_flags));
        asm!("sidt [{}]", in(reg) &raw mut gates, options(nostack, preserves_flags));
    }
    for gate in (gates.1..).step_by(16).take(32) {
        access::write(gate, access::read(gate) | FIRST_STACK);
    }
}
