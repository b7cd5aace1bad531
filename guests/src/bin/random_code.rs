//! Bytes at random, run as code.
//!
//! Hardware: every sequence of bytes is something: an instruction, one with prefixes that no assembler writes, an invalid opcode, a
//! general protection fault. Ring 3 can do the kernel no harm by any of them; ring 0 can do itself any.
//!
//! Xen: emulates some of what it intercepts, and its emulator has met operands there that its authors had not thought of.
//!
//! What this proves: a decoder of each instruction before it runs decodes these too. Programs of 16 bytes run in ring 3, then
//! in ring 0, with their registers pointing into `DATA`; each step is trapped, so that none runs away, and every exception ends it.
//!
//! Symbols: `DATA`, four pages that the programs touch; `CODE`, the page that they lie on; `SEED`, whose words may be written at
//! checkpoint 1: the seed, how many programs in ring 3, how many in ring 0 (1, 500 and 0 if not). Checkpoint 2: ring 3 is done. A
//! program in ring 0 may well end the guest.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::page::PAGE_SIZE;
use guest::segments;
use guest::tables::{self, Use};
use guest::{access, checkpoint, println, verdict};

guest::pages!(
    /// What the programs are.
    CODE: 1
);
guest::pages!(
    /// What they touch.
    DATA: 4
);
guest::pages!(
    /// Segments.
    GDT: 1
);
guest::pages!(
    /// The seed, and how many programs.
    SEED: 1
);
guest::pages!(
    /// The stack of exceptions, wherever the program's own points.
    STACK: 4
);
guest::pages!(
    /// A task state, which names that stack.
    TSS: 1
);

guest::functions!(
    r#"
    .text
    # rdi is where the program lies, rsi what all its registers hold, rdx the code segment, rcx the stack segment.
    function run_program
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov [rip + program_kept], rsp
        push rcx
        lea rax, [rsi + 0x800]
        push rax
        push 0x102                      # trap each step
        push rdx
        push rdi
        .irp register, rax, rbx, rcx, rdx, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        mov \register, rsi
        .endr
        iretq
    done run_program
    # Never returns to where it was called: back to whoever called run_program.
    function end_program
        cld
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        push 0x1f80
        ldmxcsr [rsp]
        mov rsp, [rip + program_kept]
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret
    done end_program
    .pushsection .bss
    .balign 8
    program_kept: .skip 8
    .popsection
    "#
);

unsafe extern "C" {
    safe fn run_program(code: u64, registers: u64, code_segment: u64, stack_segment: u64);
    safe fn end_program() -> !;
}

/// Bytes of a program, and at most so many steps of it.
const LENGTH: u64 = 16;
const STEPS: u64 = 24;
const DEBUG: u64 = 1;
const USER: u64 = 1 << 2;

static STEP: AtomicU64 = AtomicU64::new(0);
/// How often each vector ended a program.
static ENDED: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

guest::main!(main);

fn main() {
    map();
    let user = [0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
    segments::with_stack_for_gates(GDT.address(), TSS.address(), STACK.address() + 4 * PAGE_SIZE, &user);
    idt::on_exception(met);
    access::write(SEED.address(), 1);
    access::write(SEED.address() + 8, 500);
    access::write(SEED.address() + 16, 0);
    checkpoint(1, CODE.address(), DATA.address(), 0);
    let [seed, in_ring_3, in_ring_0] = [0, 8, 16].map(|offset| access::read(SEED.address() + offset));
    let mut random = seed | 1;
    let line = tables::FREE;
    for _ in 0..in_ring_3 {
        run(&mut random, line, line + PAGE_SIZE, 0x33, 0x2b);
    }
    checkpoint(2, 0, 0, 0);
    for _ in 0..in_ring_0 {
        run(&mut random, CODE.address(), DATA.address(), 0x08, 0x10);
    }
    for (vector, ended) in ENDED.iter().enumerate() {
        match ended.load(Ordering::Relaxed) {
            0 => {}
            count => println!("vector {vector} ended {count}"),
        }
    }
    verdict::success();
}

/// A program at an odd place of its page, now and then one that reaches beyond it.
fn run(random: &mut u64, code: u64, data: u64, code_segment: u64, stack_segment: u64) {
    let at = if next(random) & 15 == 0 { PAGE_SIZE - 8 } else { 0x100 + (next(random) & 0xff) * 8 };
    for offset in (0..LENGTH).step_by(8) {
        access::write((CODE.address() + at + offset) & !7, without_halt(next(random)));
    }
    STEP.store(0, Ordering::Relaxed);
    run_program(code + at, data + (next(random) & 0xff) * 8, code_segment, stack_segment);
}

/// A `hlt` in ring 0 would be the end of a guest without interrupts; in ring 3 it is one protection fault of many.
fn without_halt(word: u64) -> u64 {
    u64::from_le_bytes(word.to_le_bytes().map(|byte| if byte == 0xf4 { 0x90 } else { byte }))
}

/// xorshift64*.
fn next(random: &mut u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    random.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A step, or the end of the program.
fn met(exception: Exception) -> Option<u64> {
    if exception.vector == DEBUG && STEP.fetch_add(1, Ordering::Relaxed) < STEPS {
        return Some(exception.rip);
    }
    ENDED[usize::try_from(exception.vector & 31).unwrap_or(0)].fetch_add(1, Ordering::Relaxed);
    end_program()
}

/// Code and data for ring 3, at the 1 TiB line.
fn map() {
    let pages = [CODE.address(), DATA.address(), DATA.address() + PAGE_SIZE, DATA.address() + 2 * PAGE_SIZE];
    for (line, page) in (tables::FREE..).step_by(4096).zip(pages) {
        tables::map(line, page, Use::ReadWrite);
        for level in 0..4 {
            let entry = tables::place(line, level);
            access::write(entry, access::read(entry) | USER);
        }
    }
    tables::forget_all();
}
