//! Checkpoints: the guest says "here", and a subscriber may act before the guest goes on.
//!
//! The instruction is a 7-byte NOP, `nopl 0x454d454d(%rax)` ("MEME"), which touches no memory whatever its operand looks
//! like. The plugin knows it by its bytes when it decodes, and stops the vCPU before it. The number of the checkpoint is
//! in rdi, three arguments in rsi, rdx and rcx: the C convention's own order. Without the plugin nothing happens.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.checkpoint, "ax", @progbits
    .balign 16
    .global checkpoint
    .type checkpoint, @function
checkpoint:
    .byte 0x0f, 0x1f, 0x80, 0x4d, 0x45, 0x4d, 0x45
    ret
    .size checkpoint, . - checkpoint
    .popsection
    "#
);

unsafe extern "C" {
    /// Says "here is point `id`", with three arguments whose meaning the guest's prose tells.
    pub safe fn checkpoint(id: u64, a: u64, b: u64, c: u64);
}
