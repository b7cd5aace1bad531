//! Instructions from a table, each run once.
//!
//! Hardware: an x86 processor knows some thousands of instructions, most of which can name memory in a dozen ways.
//!
//! Xen: decodes for itself what it has to emulate, and its decoder has differed from the processor's now and then.
//!
//! What this proves: what is foreseen of an instruction is what the processor does, for whatever stands in the table. Each
//! runs in ring 3, in 64-bit, 32-bit or 16-bit code, or in ring 0, with registers that point into `DATA`; it is trapped after one step, and
//! whatever exception it meets is noted instead.
//!
//! The table lies at 32 MiB, where the machine's loader has put it: a word of 8 bytes that marks it, and how many instructions there are, 8
//! bytes each: of ring 3 in 64-bit, 32-bit and 16-bit code, of ring 0 in 64-bit code, and of those that go to another ring. From the next page
//! on there are 32 bytes an instruction, filled with 0xcc; the last kind has 96 more each: selectors of code and of data, 8 bytes each, and what
//! stands on its stack.
//!
//! 16-bit code's segment begins with the instruction, its data's with `DATA`. Selectors: 0x08 and 0x10 code and data of ring 0, 0x2b data,
//! 0x33 and 0x3b code of 64 and of 32 bits in ring 3, 0x43 and 0x4b code and data of 16 bits, 0x50 code of 32 bits in ring 0, 0x5b a gate to
//! ring 0. Interrupt 29 leads to ring 0, too, where no step is trapped: that is told as vector 31.
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
use guest::segments;
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
    # Where gates lead: the step that leads there is trapped, unless an interrupt has stopped tracing.
    function inner_code
        jmp end_instruction
    done inner_code
    .pushsection .bss
    .balign 8
    instruction_kept: .skip 8
    .popsection
    "#
);

unsafe extern "C" {
    safe fn run_instruction(code: u64, code_segment: u64, data_segment: u64, data: u64);
    safe fn end_instruction() -> !;
    safe fn inner_code() -> !;
}

/// Where the table lies, and its mark.
const TABLE: u64 = 32 << 20;
const MARK: u64 = u64::from_le_bytes(*b"encoding");
/// Bytes of a large page, and of an instruction's place.
const LARGE: u64 = 2 << 20;
const PLACE: u64 = 32;
/// Vectors on a line of the console.
const LINE: usize = 100;
const USER: u64 = 1 << 2;
/// Bytes of an instruction with selectors and a stack: these, and 32 for itself.
const WITH_STACK: u64 = 128;
/// Selectors.
const KERNEL_CODE: u64 = 0x08;
const KERNEL_DATA: u64 = 0x10;
const USER_DATA: u64 = 0x2b;
const CODE_64: u64 = 0x33;
const CODE_32: u64 = 0x3b;
const CODE_16: u64 = 0x43;
const DATA_16: u64 = 0x4b;
/// The vector that ring 3 may raise, which is no exception's.
const OPEN: u64 = 29;
/// What is told of an instruction that ended without an exception.
const NONE: u64 = 31;

static VECTOR: AtomicU64 = AtomicU64::new(0);

guest::main!(main);
guest::needs!(table);

fn main() {
    if access::read(TABLE) != MARK {
        skip!("there is no table at {TABLE:#x}");
    }
    if cpu::cpuid(1, 0)[2] & 1 << 28 == 0 {
        skip!("this processor has no AVX");
    }
    let counts = [0, 1, 2, 3, 4].map(|kind| access::read(TABLE + 8 + kind * 8));
    let alike = counts[..4].iter().sum::<u64>();
    let with_stack = TABLE + PAGE_SIZE + alike * PLACE;
    enable_extensions();
    open_to_ring_3(with_stack + counts[4] * WITH_STACK);
    make_descriptors();
    idt::on_exception(met);
    let mut line = Line::default();
    let mut place = TABLE + PAGE_SIZE;
    let segments = [(CODE_64, USER_DATA), (CODE_32, USER_DATA), (CODE_16, DATA_16), (KERNEL_CODE, KERNEL_DATA)];
    for ((code, data), count) in segments.into_iter().zip(counts) {
        for _ in 0..count {
            line.add(run(place, code, data, &[]));
            place += PLACE;
        }
    }
    for place in (with_stack..).step_by(128).take(usize::try_from(counts[4]).unwrap_or(0)) {
        let [code, data] = [32, 40].map(|at| access::read(place + at));
        let stack: [u64; 10] = core::array::from_fn(|word| access::read(place + 48 + word as u64 * 8));
        line.add(run(place, code, data, &stack));
    }
    line.end();
    println!("{} instructions", alike + counts[4]);
    verdict::success();
}

/// Runs one; the vector that ended it.
fn run(place: u64, code_segment: u64, data_segment: u64, stack: &[u64]) -> u64 {
    if !stack.is_empty() || (place / PLACE).is_multiple_of(16) {
        fill();
    }
    VECTOR.store(NONE, Ordering::Relaxed);
    for (at, word) in (DATA.address() + 0x4800..).step_by(8).zip(stack) {
        access::write(at, *word);
    }
    if code_segment == CODE_16 {
        access::write(GDT.address() + (CODE_16 & !7), CODE_OF_16_BITS | based(place));
    }
    let before = Control::now();
    let at = if code_segment == CODE_16 { 0 } else { place };
    run_instruction(at, code_segment, data_segment, DATA.address() + 0x1800);
    before.restore();
    VECTOR.load(Ordering::Relaxed)
}

/// What an instruction of ring 0 may change for those after it.
struct Control {
    cr0: u64,
    cr4: u64,
}

impl Control {
    fn now() -> Control {
        let [cr0, cr4];
        // SAFETY: reading control registers changes nothing.
        unsafe {
            asm!("mov {}, cr0", "mov {}, cr4", out(reg) cr0, out(reg) cr4, options(nomem, nostack, preserves_flags));
        }
        Control { cr0, cr4 }
    }

    fn restore(&self) {
        let now = Control::now();
        if (now.cr0, now.cr4) != (self.cr0, self.cr4) {
            // SAFETY: what they held before.
            unsafe { asm!("mov cr0, {}", "mov cr4, {}", in(reg) self.cr0, in(reg) self.cr4, options(nostack)) };
        }
    }
}

/// Vectors for the console.
struct Line {
    letters: [u8; LINE],
    length: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { letters: [0; LINE], length: 0 }
    }
}

impl Line {
    fn add(&mut self, vector: u64) {
        self.letters[self.length] = b'A' + u8::try_from(vector & 31).unwrap_or(0);
        self.length += 1;
        if self.length == LINE {
            self.end();
        }
    }

    fn end(&mut self) {
        println!("vectors {}", core::str::from_utf8(&self.letters[..self.length]).unwrap_or(""));
        self.length = 0;
    }
}

/// `DATA` and the table, up to there.
fn open_to_ring_3(end: u64) {
    for page in [DATA.address()].into_iter().chain((TABLE..end).step_by(2 << 20)) {
        let first = page / LARGE * LARGE;
        for level in [3, 2, 1] {
            let entry = tables::place(first, level);
            access::write(entry, access::read(entry) | USER);
        }
    }
    tables::forget_all();
}

/// Of 16 bits in ring 3, without their bases.
const CODE_OF_16_BITS: u64 = 0x0000_fb00_0000_ffff;
const DATA_OF_16_BITS: u64 = 0x0000_f300_0000_ffff;

/// A descriptor's base.
fn based(at: u64) -> u64 {
    (at & 0xff_ffff) << 16 | at >> 24 << 56
}

/// The segments, a stack for exceptions, another one for calls and interrupts to ring 0; a gate, and an interrupt that ring 3 may raise.
fn make_descriptors() {
    let inner = (inner_code as *const ()).expose_provenance() as u64;
    let gate = |kind: u64| inner & 0xffff | KERNEL_CODE << 16 | kind << 40 | inner >> 16 << 48;
    let more = [
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        0x00cf_fb00_0000_ffff,
        CODE_OF_16_BITS,
        DATA_OF_16_BITS | based(DATA.address()),
        0x00cf_9b00_0000_ffff,
        gate(0xec),
        inner >> 32,
    ];
    segments::with_stack_for_gates(GDT.address(), TSS.address(), STACK.address() + 4 * PAGE_SIZE, &more);
    let top = STACK.address() + 2 * PAGE_SIZE;
    access::write(TSS.address(), top << 32);
    access::write(TSS.address() + 8, top >> 32);
    let mut gates = segments::Pointer(0, 0);
    // SAFETY: it writes where it is told to.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut gates, options(nostack, preserves_flags)) };
    access::write(gates.1 + OPEN * 16, gate(0xee));
    access::write(gates.1 + OPEN * 16 + 8, inner >> 32);
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
