//! Instructions from a table, each run once.
//!
//! Hardware: an x86 processor knows some thousands of instructions, most of which can name memory in a dozen ways.
//!
//! Xen: decodes for itself what it has to emulate, and its decoder has differed from the processor's now and then.
//!
//! What this proves: what is foreseen of an instruction is what the processor does, for whatever stands in the table. Each
//! runs in ring 3, in 64-bit or in 32-bit code, with registers that point into `DATA`; it is trapped after one step, and whatever exception it
//! meets is noted instead.
//!
//! The table lies at 32 MiB, where the machine's loader has put it: a word of 8 bytes that marks it, how many instructions there are of 64-bit
//! code and of 32-bit code, 8 bytes each, and from the next page on 32 bytes an instruction, filled with 0xcc.
//!
//! Symbols: `DATA`, eight pages that the instructions touch. Lines `vectors …` on the console: of each instruction the vector of what ended
//! it, as the letter `A` and so many further; `B` is the step after it.
//!
//! | register | holds |
//! |---|---|
//! | rax, rcx, rdx | 8, 16, 128 |
//! | rsp | `DATA` + 0x4800 |
//! | rsi, rdi | `DATA` + 0x2800, `DATA` + 0x3800 |
//! | all others | `DATA` + 0x1800 |
//! | bases of FS and GS | 0x100, 0x200 |
//! | vector registers | all ones, but for some in the upper half of the last |

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::page::PAGE_SIZE;
use guest::segments::{self, Pointer};
use guest::{access, cpu, println, skip, tables, verdict};

guest::pages!(
    /// What the instructions touch.
    DATA: 8
);
guest::pages!(
    /// Segments.
    GDT: 1
);
guest::pages!(
    /// The stack of exceptions, wherever the instruction's own points.
    STACK: 4
);
guest::pages!(
    /// A task state, which names that stack.
    TSS: 1
);

guest::functions!(
    r#"
    .text
    # rdi is where the instruction lies, rsi its code segment, rdx the segment of its data and stack, rcx DATA + 0x1800.
    function run_instruction
        push rbx
        push rbp
        push r12
        push r13
        push r14
        push r15
        mov [rip + instruction_kept], rsp
        lea rbx, [rcx + 0x3000]
        push rdx
        push rbx
        push 0x102                      # trap the step
        push rsi
        push rdi
        mov ds, edx
        mov es, edx
        mov rbx, rcx
        mov ecx, 0xc0000100
        mov eax, 0x100
        xor edx, edx
        wrmsr
        mov ecx, 0xc0000101
        mov eax, 0x200
        wrmsr
        fninit
        .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
        vpcmpeqd ymm\number, ymm\number, ymm\number
        .endr
        vpslld xmm14, xmm14, 4
        vinserti128 ymm15, ymm15, xmm14, 1
        vpcmpeqd ymm14, ymm14, ymm14
        .irp register, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        mov \register, rbx
        .endr
        lea rsi, [rbx + 0x1000]
        lea rdi, [rbx + 0x2000]
        mov eax, 8
        mov ecx, 16
        mov edx, 128
        iretq
    done run_instruction
    # Never returns to where it was called: back to whoever called run_instruction.
    function end_instruction
        cld
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        push 0x1f80
        ldmxcsr [rsp]
        mov rsp, [rip + instruction_kept]
        pop r15
        pop r14
        pop r13
        pop r12
        pop rbp
        pop rbx
        ret
    done end_instruction
    .pushsection .bss
    .balign 8
    instruction_kept: .skip 8
    .popsection
    "#
);

unsafe extern "C" {
    safe fn run_instruction(code: u64, code_segment: u64, data_segment: u64, data: u64);
    safe fn end_instruction() -> !;
}

/// Where the table lies, and its mark.
const TABLE: u64 = 32 << 20;
const MARK: u64 = u64::from_le_bytes(*b"encoding");
/// Bytes of a large page, and of an instruction's place.
const LARGE: u64 = 2 << 20;
const PLACE: u64 = 32;
/// Vectors on a line of the console.
const LINE: usize = 100;
const TASK: u64 = 0x18;
const USER: u64 = 1 << 2;
/// The stack of the task state that gates are told to take: the first of seven.
const FIRST_STACK: u64 = 1 << 32;
/// In `GDT`, for ring 3: data, and code of 64 and of 32 bits.
const USER_DATA: u64 = 0x2b;
const CODE_64: u64 = 0x33;
const CODE_32: u64 = 0x3b;

static VECTOR: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    if access::read(TABLE) != MARK {
        skip!("there is no table at {TABLE:#x}");
    }
    if cpu::cpuid(1, 0)[2] & 1 << 28 == 0 {
        skip!("this processor has no AVX");
    }
    let (of_64, of_32) = (access::read(TABLE + 8), access::read(TABLE + 16));
    enable_extensions();
    let places = TABLE + PAGE_SIZE;
    let end = places + (of_64 + of_32) * PLACE;
    for page in [DATA.address()].into_iter().chain((TABLE..end).step_by(2 << 20)) {
        let first = page / LARGE * LARGE;
        for level in [3, 2, 1] {
            let entry = tables::place(first, level);
            access::write(entry, access::read(entry) | USER);
        }
    }
    tables::forget_all();
    make_descriptors();
    idt::on_exception(met);
    let mut line = [0; LINE];
    for number in 0..of_64 + of_32 {
        if number.is_multiple_of(16) {
            fill();
        }
        let code_segment = if number < of_64 { CODE_64 } else { CODE_32 };
        run_instruction(places + number * PLACE, code_segment, USER_DATA, DATA.address() + 0x1800);
        let column = usize::try_from(number).unwrap_or(0) % LINE;
        line[column] = b'A' + u8::try_from(VECTOR.load(Ordering::Relaxed) & 31).unwrap_or(0);
        if column == LINE - 1 || number == of_64 + of_32 - 1 {
            println!("vectors {}", core::str::from_utf8(&line[..=column]).unwrap_or(""));
        }
    }
    println!("{} instructions", of_64 + of_32);
    verdict::success();
}

/// Where an instruction may look: a place within `DATA` that is neither 0 nor the end of anything.
fn fill() {
    for page in 1..5 {
        let at = DATA.address() + page * PAGE_SIZE + 0x800;
        // SAFETY: it lies within `DATA`.
        unsafe {
            asm!(
                "rep stosq",
                inout("rdi") at => _, inout("rcx") 64_u64 => _, in("rax") DATA.address() + 0x111,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// SSE with its exceptions, XSAVE with all of x87, SSE and AVX, and the instructions for the bases of FS and GS.
fn enable_extensions() {
    // SAFETY: the processor has AVX, and so all of these.
    unsafe {
        asm!(
            "mov rax, cr4", "or eax, 0x50600", "mov cr4, rax",
            "mov eax, 7", "xor edx, edx", "xor ecx, ecx", "xsetbv",
            out("rax") _, out("rcx") _, out("rdx") _, options(nostack)
        );
    }
}

fn met(exception: Exception) -> Option<u64> {
    VECTOR.store(exception.vector, Ordering::Relaxed);
    end_instruction()
}

/// The runtime's segments, a task state with a stack for all exceptions, the user's segments; and gates that take that stack.
fn make_descriptors() {
    let (gdt, tss) = (GDT.address(), TSS.address());
    let user = [0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff, 0x00cf_fb00_0000_ffff];
    let all = segments::KERNEL.into_iter().chain(segments::task(tss)).chain(user);
    for (offset, segment) in (0..).step_by(8).zip(all) {
        access::write(gdt + offset, segment);
    }
    // The first stack for gates lies at offset 36 of the task state, and no ports are open to ring 3.
    let top = STACK.address() + 4 * PAGE_SIZE;
    access::write(tss + 32, top << 32);
    access::write(tss + 40, top >> 32);
    access::write(tss + 96, 0x68 << 48);
    let (segments, mut gates) = (Pointer(0xfff, gdt), Pointer(0, 0));
    // SAFETY: the tables are complete and static, and nothing needs the local one.
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
