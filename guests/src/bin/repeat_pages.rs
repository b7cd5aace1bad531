//! A repeated string instruction over pages that are watched, each closed again when the next one is met.
//!
//! Hardware: a repeated instruction is one element after another. A violation comes at the element that touches the page, with the
//! registers of that element, and after the exit the instruction goes on from there: what was done before is not done again. Where the
//! address size ends, the next element is at the other end of the segment.
//!
//! Xen: gets this from the processor.
//!
//! What this proves: no page is reported before its element is due. A listener that keeps one page open at a time, the one that was met last,
//! once kept such an instruction from ever beginning: all its pages were asked for before the first element, and each answer closed
//! the page of the answer before. And no page is reported that is not touched at all: the one behind the end of a segment of 64 KiB.
//!
//! Symbols: `FIRST` and `SECOND`, two pages side by side; `SEGMENT`, the 16 pages of a segment and the page behind them.
//!
//! Checkpoints: before each filling over the border of the two pages: 1 by an instruction that its block begins with, 2 by one in the
//! middle of its block, 3 from above; 4 before one over the end of the segment, by addresses of 16 bits; 5: end, with everything open.

#![no_std]
#![no_main]

use core::arch::asm;

use guest::page::PAGE_SIZE;
use guest::segments::{self, Pointer};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// The page below the border.
    FIRST: 1
);
guest::pages!(
    /// The page above it.
    SECOND: 1
);
guest::pages!(
    /// A segment of 64 KiB, and the page behind it.
    SEGMENT: 17
);
guest::pages!(
    /// Segments.
    TABLE: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    # Each fills rsi bytes from rdi on with dl.
    function fill_at_block
        mov ecx, esi
        mov eax, edx
        jmp 2f
    2:  rep stosb
        ret
    done fill_at_block
    function fill_in_block
        mov ecx, esi
        mov eax, edx
        rep stosb
        ret
    done fill_in_block
    function fill_down
        mov ecx, esi
        mov eax, edx
        std
        rep stosb
        cld
        ret
    done fill_down
    # From offset di of the segment on, in 32-bit code, by addresses of 16 bits.
    function fill_segment
        push {code}
        lea rax, [rip + 2f]
        push rax
        rex64 retf
        .code32
    2:  mov ecx, {data}
        mov es, ecx
        mov ecx, esi
        mov eax, edx
        .byte 0x67, 0xf3, 0xaa          # rep stosb, with an address size of 16 bits
        .byte 0xea                      # and back
        .long 3f
        .word 8
        .code64
    3:  mov ecx, 0x10
        mov es, ecx
        ret
    done fill_segment
    "#,
    code = const CODE,
    data = const DATA,
);

unsafe extern "C" {
    safe fn fill_at_block(address: u64, bytes: u64, value: u64);
    safe fn fill_in_block(address: u64, bytes: u64, value: u64);
    safe fn fill_down(last: u64, bytes: u64, value: u64);
    safe fn fill_segment(offset: u64, bytes: u64, value: u64);
}

/// The selector of 32-bit code.
const CODE: u64 = 0x18;
/// The selector of data that begin with `SEGMENT`.
const DATA: u64 = 0x20;
/// Where the segment ends.
const END: u64 = 0x1_0000;

guest::main!(main);

fn main() {
    let (first, second) = (FIRST.address(), SECOND.address());
    if second != first + PAGE_SIZE {
        failure!("{FIRST:?} and {SECOND:?} are not side by side");
    }
    load_segments();
    checkpoint(1, first, second, 0);
    fill_at_block(first + 0x800, 0x1000, 0xa1);
    checkpoint(2, first, second, 0);
    fill_in_block(first + 0xa00, 0xc00, 0xa2);
    checkpoint(3, first, second, 0);
    fill_down(second + 0x3ff, 0x800, 0xa3);
    checkpoint(4, SEGMENT.address(), SEGMENT.bytes(), 0);
    fill_segment(END - 0x10, 0x20, 0x5a);
    checkpoint(5, 0, 0, 0);
    for (from, to, value) in [
        (0, 0x800, 0),
        (0x800, 0xa00, 0xa1),
        (0xa00, 0xc00, 0xa2),
        (0xc00, 0x1400, 0xa3),
        (0x1400, 0x1600, 0xa2),
        (0x1600, 0x1800, 0xa1),
        (0x1800, 0x2000, 0),
    ] {
        all_are(first + from, first + to, value);
    }
    let segment = SEGMENT.address();
    for (from, to, value) in
        [(0, 0x10, 0x5a), (0x10, END - 0x10, 0), (END - 0x10, END, 0x5a), (END, SEGMENT.bytes(), 0)]
    {
        all_are(segment + from, segment + to, value);
    }
    println!("filled three times over the border of two pages, and over the end of a segment");
    verdict::success();
}

/// Each byte of these has this value.
fn all_are(from: u64, to: u64, value: u64) {
    for address in (from..to).step_by(8) {
        let found = access::read(address);
        if found != value * 0x0101_0101_0101_0101 {
            failure!("{found:#x} at {address:#x} instead of {value:#x} in each byte");
        }
    }
}

/// The runtime's segments, 32-bit code, and data that begin with `SEGMENT`.
fn load_segments() {
    let base = SEGMENT.address();
    let data = 0x00cf_9300_0000_ffff | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56;
    let segments = segments::KERNEL.into_iter().chain([0x00cf_9b00_0000_ffff, data]);
    for (at, segment) in (TABLE.address()..).step_by(8).zip(segments) {
        access::write(at, segment);
    }
    let pointer = Pointer(0xfff, TABLE.address());
    // SAFETY: the table is complete and static, and its first entries are the runtime's.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags)) };
}
