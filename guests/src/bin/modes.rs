//! Real mode, 32-bit code without paging, compatibility mode.
//!
//! Hardware: a PC begins in 16-bit code. There an address is an offset of 16 bits, which wraps, and the base of a segment; 32-bit code
//! has segments with a base too, and linear addresses of 32 bits, with paging or without. In compatibility mode 32-bit code runs on
//! the page tables of long mode. EPT sees guest-physical addresses in all of them.
//!
//! Xen: runs real mode natively where the processor can, and reports violations there as anywhere.
//!
//! What this proves: a decoder that computes addresses from registers must know the code size in force, the default segments and the
//! bases, and that the same bytes mean another instruction in another mode.
//!
//! Symbols: none; the pages are the eight frames from 0x20 on, which 16-bit code can reach. Page n lies at 0x20000 + n * 0x1000.
//! Checkpoint 1 comes before each case (the third argument is the case's function), checkpoint 2 at the end.
//!
//! | case | accesses, one a page, in order |
//! |---|---|
//! | `modes_compatibility`, `modes_protected` | read by base and index; write by a segment with a base; push; read by ebp; add; string copy |
//! | `modes_real` | read by bx+si; write by es; push; read by bp, whose segment is ss; read that wraps at 64 KiB; read with 32-bit addressing; string copy |

#![no_std]
#![no_main]

use core::arch::asm;

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, verdict};

/// Where page 0 lies.
const PAGES: u64 = 0x2_0000;
/// Where the 16-bit code is copied to.
const LOW: u64 = 0x1_0000;

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .macro save
    push rbx
    push rbp
    mov [modes_stack], rsp
    .endm
    .macro restore
    mov rsp, [modes_stack]
    mov ecx, 0x10
    mov ds, ecx
    mov es, ecx
    mov ss, ecx
    pop rbp
    pop rbx
    mov eax, eax
    .endm
    .macro far_jump_to_32 target:req
    push 0x18
    lea rax, [rip + \target]
    push rax
    retfq
    .endm

    function modes_compatibility
        save
        far_jump_to_32 1f
        .code32
    1:  call accesses_32
        .byte 0xea                      # a far jump
        .long 2f
        .word 0x08
        .code64
    2:  restore
        ret
    done modes_compatibility

    function modes_protected
        save
        far_jump_to_32 1f
        .code32
    1:  mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax
        call accesses_32
        jmp back_to_long_mode
        .code64
    done modes_protected

    function modes_real
        save
        far_jump_to_32 1f
        .code32
    1:  mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax
        .byte 0xea
        .long {low}
        .word 0x30
        .code64
    done modes_real

    .code32
    # Returns in eax what it read.
    function accesses_32
        pop edx
        mov ebx, {pages}
        mov ecx, 4
        mov eax, [ebx + ecx*8]
        mov ecx, 0x28
        mov fs, ecx
        mov dword ptr fs:[0x10], 5
        lea esp, [ebx + 0x2104]
        push ecx
        lea ebp, [ebx + 0x3000]
        add eax, [ebp + 8]
        add dword ptr [ebx + 0x4010], 1
        lea esi, [ebx + 0x5004]
        lea edi, [ebx + 0x6008]
        movsd
        jmp edx
    done accesses_32

    function back_to_long_mode
        mov ecx, 0x10
        mov ds, ecx
        mov ecx, cr0
        or ecx, 0x80000001
        mov cr0, ecx
        .byte 0xea                      # a far jump
        .long 2f
        .word 0x08
        .code64
    2:  restore
        ret
    done back_to_long_mode

    # Copied to LOW and entered in a 16-bit protected code segment with base 0.
    .code16
    .global real_code, real_code_end
    real_code:
        mov eax, cr0
        and eax, 0xfffffffe
        mov cr0, eax
        .byte 0xea
        .word 3f - real_code
        .word {low_segment}
    3:  mov ax, 0x2000
        mov ds, ax
        mov ax, 0x2100
        mov es, ax
        mov bx, 0x10
        mov si, 0x10
        movzx edx, word ptr [bx + si]
        mov word ptr es:[bx], 5
        mov ax, 0x2200
        mov ss, ax
        mov esp, 0x100                  # the segment's hidden part still says 32 bits
        push ax
        mov bp, 0x1008
        add dx, [bp]
        mov ax, 0x2400
        mov ds, ax
        mov bx, 0xfff0
        mov si, 0x30
        add dx, [bx + si]
        mov ax, 0x2500
        mov ds, ax
        mov ebx, 8
        add dx, [ebx*2 + 0x10]
        mov ax, 0x2600
        mov ds, ax
        mov ax, 0x2700
        mov es, ax
        mov si, 4
        mov di, 8
        movsb
        mov ecx, cr0
        or ecx, 1
        mov cr0, ecx
        mov eax, edx
        .byte 0x66, 0xea                # with an offset of 32 bits
        .long back_to_long_mode
        .word 0x18
    real_code_end:
    .code64
    .balign 4096

    .section .data
    .balign 8
    modes_stack: .quad 0
    modes_gdt:
        .quad 0
        .quad 0x00af9b000000ffff        # 0x08 code, 64-bit
        .quad 0x00cf93000000ffff        # 0x10 data
        .quad 0x00cf9b000000ffff        # 0x18 code, 32-bit
        .quad 0
        .quad 0x00cf93021000ffff        # 0x28 data, base 0x21000
        .quad 0x008f9b000000ffff        # 0x30 code, 16-bit
    modes_gdt_end:
    .global modes_gdt_pointer
    modes_gdt_pointer:
        .word modes_gdt_end - modes_gdt - 1
        .quad modes_gdt
    .text
    "#,
    pages = const PAGES,
    low = const LOW,
    low_segment = const LOW >> 4,
);

unsafe extern "C" {
    safe fn modes_compatibility() -> u64;
    safe fn modes_protected() -> u64;
    safe fn modes_real() -> u64;
    static real_code: u8;
    static real_code_end: u8;
    static modes_gdt_pointer: u8;
}

/// A word that a case reads.
const WORD: u64 = 0x11;

guest::main!(main);

fn main() {
    copy_real_code();
    // SAFETY: the table is complete and static, and has the runtime's segments at their places.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const modes_gdt_pointer, options(nostack, preserves_flags)) };
    run(modes_compatibility, 2, &[(0x1010, 5), (0x4010, WORD + 1), (0x6008, WORD)]);
    run(modes_protected, 2, &[(0x1010, 5), (0x4010, WORD + 1), (0x6008, WORD)]);
    run(modes_real, 4, &[(0x1010, 5), (0x7008, WORD)]);
    checkpoint(2, PAGES, 8 * PAGE_SIZE, 0);
    println!("every mode read what was there");
    verdict::success();
}

/// A case reads some words and returns their sum; afterwards the pages hold what it wrote.
fn run(case: extern "C" fn() -> u64, words: u64, written: &[(u64, u64)]) {
    for (page, at) in [(0, 0x20), (3, 0x8), (4, 0x10), (4, 0x20), (5, 0x4), (5, 0x20), (6, 0x4)] {
        access::write(PAGES + page * PAGE_SIZE + at, WORD);
    }
    checkpoint(1, PAGES, 8 * PAGE_SIZE, (case as *const ()).expose_provenance() as u64);
    let sum = case();
    checkpoint(2, PAGES, 8 * PAGE_SIZE, 0);
    if sum != words * WORD {
        failure!("read {sum:#x} instead of {:#x}", words * WORD);
    }
    for (offset, value) in written {
        let found = access::read(PAGES + offset) & 0xffff_ffff;
        if found != *value {
            failure!("{found:#x} at {offset:#x} instead of {value:#x}");
        }
        access::write(PAGES + offset, 0);
    }
}

fn copy_real_code() {
    let from = (&raw const real_code).expose_provenance() as u64;
    let bytes = (&raw const real_code_end).addr() as u64 - from;
    for offset in (0..bytes).step_by(8) {
        access::write(LOW + offset, access::read(from + offset));
    }
}
