//! Known registers and flags at an access in the middle of a block.
//!
//! Hardware: a VM exit saves the whole register file, and RFLAGS is what the instruction before left.
//!
//! Xen: puts the registers into each request of `vm_event`, and a consumer decides by them.
//!
//! What this proves: an emulator that computes flags only on demand must do so for an event too. Each case leaves other flags
//! by an addition or comparison, puts known values into registers, and touches the watched page before anything asked for the flags.
//!
//! Symbols: `WATCHED`, one page. Checkpoint 1 comes before each case: its second argument is the instruction that touches, its third
//! what CF, PF, AF, ZF, SF, DF and OF are there. R8 to R11 then hold 0x8888888888888888 and so on up to 0xbbbbbbbbbbbbbbbb.

#![no_std]
#![no_main]

use core::arch::global_asm;
use guest::{checkpoint, failure, verdict};

guest::main!(main);
guest::pages!(/** Touched once a case. */ WATCHED: 1);

global_asm!(
    r#"
    .pushsection .text.registers, "ax", @progbits
    .macro known
        mov r8, 0x8888888888888888
        mov r9, 0x9999999999999999
        mov r10, 0xaaaaaaaaaaaaaaaa
        mov r11, 0xbbbbbbbbbbbbbbbb
    .endm
    .balign 16
    .global registers_carry, registers_carry_touch
    registers_carry:
        known
        mov rax, -1
        add rax, 1
    registers_carry_touch:
        mov rax, [rdi]
        ret
    .balign 16
    .global registers_overflow, registers_overflow_touch
    registers_overflow:
        known
        mov eax, 0x7fffffff
        add eax, 1
    registers_overflow_touch:
        mov [rdi], rax
        ret
    .balign 16
    .global registers_down, registers_down_touch
    registers_down:
        known
        std
        mov eax, 1
        cmp eax, 2
    registers_down_touch:
        mov [rdi], eax
        cld
        ret
    .popsection
    "#
);

unsafe extern "C" {
    safe fn registers_carry(address: u64);
    safe fn registers_overflow(address: u64);
    safe fn registers_down(address: u64);
    static registers_carry_touch: u8;
    static registers_overflow_touch: u8;
    static registers_down_touch: u8;
}

const CARRY: u64 = 1;
const PARITY: u64 = 1 << 2;
const AUXILIARY: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const DIRECTION: u64 = 1 << 10;
const OVERFLOW: u64 = 1 << 11;

fn main() {
    let page = WATCHED.address();
    let address = |symbol: &'static u8| core::ptr::from_ref(symbol) as u64;
    // SAFETY: the symbols are code above; only their addresses are used.
    let touches = unsafe { [&registers_carry_touch, &registers_overflow_touch, &registers_down_touch].map(address) };
    let functions = [registers_carry, registers_overflow, registers_down];
    let flags = [
        CARRY | PARITY | AUXILIARY | ZERO,
        PARITY | AUXILIARY | SIGN | OVERFLOW,
        CARRY | PARITY | AUXILIARY | SIGN | DIRECTION,
    ];
    for ((function, touch), flags) in functions.into_iter().zip(touches).zip(flags) {
        checkpoint(1, page, touch, flags);
        function(page);
    }
    if guest::access::read(page) & 0xffff_ffff != 1 {
        failure!("the last write did not happen");
    }
    verdict::success();
}
