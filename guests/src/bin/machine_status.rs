//! CR0 written by halves: `clts` and `lmsw`.
//!
//! Hardware: `lmsw` loads the low four bits of CR0 and cannot clear PE; `clts` clears TS. Both are writes of CR0 to a hypervisor.
//!
//! Xen: reports both before they take effect, with all of CR0.
//!
//! What this proves: each write that changes CR0 is told once, whichever instruction makes it, and with the value that it then has; one
//! that changes nothing is not told.
//!
//! Symbols: `by_register`, `by_memory`, `by_clear`: the functions that write. Checkpoint 1: before the writes. Checkpoint 2: end.

#![no_std]
#![no_main]

use core::arch::asm;

use guest::{checkpoint, failure, println, verdict};

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    # Each takes the word to write, and clobbers nothing but its stack.
    function by_register
        lmsw di
        ret
    done by_register
    function by_memory
        push rdi
        lmsw [rsp]
        pop rdi
        ret
    done by_memory
    function by_clear
        clts
        ret
    done by_clear
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn by_register(word: u64);
    safe fn by_memory(word: u64);
    safe fn by_clear(word: u64);
}

const PROTECTED: u64 = 1;
const TASK_SWITCHED: u64 = 1 << 3;

guest::main!(main);

fn main() {
    let before = cr0();
    let without = before & 0xf & !TASK_SWITCHED;
    checkpoint(1, 0, 0, 0);
    let writes: [(&str, extern "C" fn(u64), u64, bool); 6] = [
        ("lmsw from a register", by_register, without | TASK_SWITCHED, true),
        ("clts", by_clear, 0, false),
        ("clts once more", by_clear, 0, false),
        ("lmsw without PE", by_register, (without | TASK_SWITCHED) & !PROTECTED, true),
        ("lmsw from memory", by_memory, without, false),
        ("lmsw from memory once more", by_memory, without, false),
    ];
    for (name, write, word, sets) in writes {
        write(word);
        let due = if sets { before | TASK_SWITCHED } else { before };
        let found = cr0();
        if found != due {
            failure!("{name}: CR0 is {found:#x} instead of {due:#x}");
        }
    }
    checkpoint(2, 0, 0, 0);
    println!("CR0 is as it was");
    verdict::success();
}

fn cr0() -> u64 {
    let value;
    // SAFETY: reading a control register changes nothing.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
