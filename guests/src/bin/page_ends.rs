//! Instructions that read, modify and write, over the end of a page whose neighbour is closed: each does once what it does.
//!
//! Hardware: an access over two pages is translated for both before anything is stored, so an instruction that is stopped at the
//! second page has done nothing and begins anew after the violation's answer.
//!
//! Xen: relies on that. A hypervisor that stops a vCPU in the midst of the store and has it begin anew adds to a value of which half is the
//! sum already.
//!
//! What this proves: whichever page stops the instruction, and however often the vCPU leaves its block meanwhile, memory and register hold
//! what a model computes.
//!
//! Symbols: `ENDS`, two pages. Before each checkpoint 1 a value is stored over their border; after it one instruction works on it (arguments:
//! its address, its number, how many there were before), nine times each: in the first six rounds both pages are read before, and may be
//! closed for writes alone, first the left one and then the right one. Checkpoint 2: end (arguments: how many there were).

#![no_std]
#![no_main]

use core::arch::global_asm;
use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// The page that ends and the page that begins.
    ENDS: 2
);

global_asm!(
    r#"
    .pushsection .text.page_ends, "ax", @progbits
    .macro works name:req, instruction:req, prefix
    .balign 16
    .type page_ends_\name, @function
    page_ends_\name:
        xor eax, eax
        \prefix
        \instruction
        ret
        .size page_ends_\name, . - page_ends_\name
    .endm
    works add, "add [rdi], esi"
    works adc, "adc [rdi], esi", stc
    works sub, "sub [rdi], esi"
    works sbb, "sbb [rdi], esi", stc
    works xor, "xor [rdi], esi"
    works or, "or [rdi], esi"
    works and, "and [rdi], esi"
    works inc, "inc dword ptr [rdi]"
    works dec, "dec dword ptr [rdi]"
    works neg, "neg dword ptr [rdi]"
    works not, "not dword ptr [rdi]"
    works shl, "shl dword ptr [rdi], 3"
    works ror, "ror dword ptr [rdi], 5"
    works btc, "btc dword ptr [rdi], 9"
    works xadd, "xadd [rdi], esi; mov eax, esi"
    works cmpxchg, "cmpxchg [rdi], esi", "mov eax, edx;"
    works xchg, "xchg [rdi], esi; mov eax, esi"
    works lock_add, "lock add [rdi], esi"
    works lock_xadd, "lock xadd [rdi], esi; mov eax, esi"
    works mov, "mov [rdi], esi"
    works movs, "lea rsi, [rdi - 8]; movsd"
    .balign 8
    page_ends_all:
    .irp name, add, adc, sub, sbb, xor, or, and, inc, dec, neg, not, shl, ror, btc, xadd, cmpxchg, xchg, lock_add, lock_xadd, mov, movs
        .quad page_ends_\name
    .endr
    .popsection
    "#
);

unsafe extern "C" {
    /// All instructions, by number: they work on four bytes at an address with an operand, and return a register.
    safe static page_ends_all: [extern "C" fn(u64, u32, u32) -> u32; INSTRUCTIONS];
}

const INSTRUCTIONS: usize = 21;
const OPERAND: u32 = 0x0102_03ff;
const STORED: u64 = 0x1122_3344_9988_77fe;

guest::main!(main);

fn main() {
    let border = ENDS.address() + PAGE_SIZE;
    let mut count = 0;
    for (number, instruction) in page_ends_all.iter().enumerate() {
        for (round, left) in [1, 2, 3, 1, 2, 3, 1, 2, 3].into_iter().enumerate() {
            let address = border - left;
            access::write(address - 8, OPERAND.into());
            access::write(address - 2, STORED);
            let before = access::read(address - 2);
            let value = middle(before);
            checkpoint(1, address, number as u64, count);
            if round < 6 {
                // Then what may be read is not stopped before the store.
                access::read(border - 8);
                access::read(border);
            }
            let register = instruction(address, OPERAND, value);
            let after = access::read(address - 2);
            let expected = model(number, before);
            let kept = before & !0xffff_ffff_0000;
            if (after, register) != (kept | u64::from(expected.0) << 16, expected.1) {
                failure!(
                    "instruction {number}, {left} bytes before the border: {before:#x} became {after:#x}, {register:#x} in the register"
                );
            }
            count += 1;
        }
    }
    checkpoint(2, count, 0, 0);
    println!("{count} instructions over the border of {ENDS:?}");
    verdict::success();
}

/// The four bytes in the middle of eight.
fn middle(bytes: u64) -> u32 {
    let [_, _, first, second, third, fourth, ..] = bytes.to_le_bytes();
    u32::from_le_bytes([first, second, third, fourth])
}

/// What becomes of the four bytes in the middle, and of the register.
fn model(number: usize, before: u64) -> (u32, u32) {
    let value = middle(before);
    match number {
        0 | 17 => (value.wrapping_add(OPERAND), 0),
        1 => (value.wrapping_add(OPERAND).wrapping_add(1), 0),
        2 => (value.wrapping_sub(OPERAND), 0),
        3 => (value.wrapping_sub(OPERAND).wrapping_sub(1), 0),
        4 => (value ^ OPERAND, 0),
        5 => (value | OPERAND, 0),
        6 => (value & OPERAND, 0),
        7 => (value.wrapping_add(1), 0),
        8 => (value.wrapping_sub(1), 0),
        9 => (value.wrapping_neg(), 0),
        10 => (!value, 0),
        11 => (value << 3, 0),
        12 => (value.rotate_right(5), 0),
        13 => (value ^ 1 << 9, 0),
        14 | 18 => (value.wrapping_add(OPERAND), value),
        15 | 16 => (OPERAND, value),
        19 | 20 => (OPERAND, 0),
        _ => failure!("no instruction {number}"),
    }
}
