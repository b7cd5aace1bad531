//! What the processor touches by itself: stacks, descriptors, page tables.
//!
//! Hardware: delivering an interrupt or exception reads the IDT, the TSS and the GDT and writes a stack; loading a segment
//! register reads the GDT; a walk reads page tables and sets accessed bits. Each of these may meet a page that EPT
//! forbids, in the middle of what the processor does. It is then undone and tried again after the exit.
//!
//! Xen: reports them as any violation. For a walk the flag `gla_valid` says that there is an address and `fault_with_gla` that it is
//! not the one of the access; the 2012 layout has `gla_valid` alone.
//!
//! What this proves: each stops before the access, is reported with frame, offset and kind, without a linear address, which
//! no instruction tells; and the guest goes on right: the handler runs once, on its stack, and comes back.
//!
//! What it does not ask: that a page which was let through for such a read stops the write of an accessed bit after it. Where
//! each instruction is checked, the host's MMU sees these touches only, and lets a page through for both.
//!
//! Symbols: `STACK`, `IDT`, `TSS`, `GDT`: what their names say, in use; `TABLE`: the last-level page table of the 2 MiB at the
//! 1 TiB line, accessed and dirty bits clear.
//!
//! Checkpoints 1 to 5 come before each case (the third argument is the case's function) and are for the five symbols in this
//! order; checkpoint 6: end.

#![no_std]
#![no_main]

use core::arch::asm;

use guest::page::PAGE_SIZE;
use guest::segments::{self, Pointer};
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, idt, println, verdict};

guest::pages!(
    /// The stack of every handler.
    STACK: 1
);
guest::pages!(
    /// Gates for the two vectors in use.
    IDT: 1
);
guest::pages!(
    /// A task state, which names the stack.
    TSS: 1
);
guest::pages!(
    /// Segments.
    GDT: 1
);
guest::pages!(
    /// A page table.
    TABLE: 1
);
guest::pages!(
    /// What it maps.
    DATA: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    # Each counts in r8 and returns what was counted.
    function invalid_opcode
        xor r8d, r8d
        ud2
        mov eax, r8d
        ret
    done invalid_opcode
    function software_interrupt
        xor r8d, r8d
        int {vector}
        mov eax, r8d
        ret
    done software_interrupt
    function hardware_interrupt
        xor r8d, r8d
        mov al, 0xff                    # the PC's own timer shall not interrupt
        out 0x21, al
        out 0xa1, al
        mov eax, {to_self}
        movabs [{interrupt_command}], eax
        sti
        hlt
        cli
        mov eax, r8d
        ret
    done hardware_interrupt
    function load_segment
        mov eax, {fresh_segment}
        mov es, eax
        mov eax, 0x10
        mov es, eax
        mov eax, 1
        ret
    done load_segment
    # rdi is the 1 TiB line.
    function walk_to_read
        mov rax, [rdi + 0x3010]
        ret
    done walk_to_read
    function walk_to_write
        mov qword ptr [rdi + 0x5018], 1
        mov eax, 1
        ret
    done walk_to_write

    function on_invalid_opcode
        inc r8d
        add qword ptr [rsp], 2
        iretq
    done on_invalid_opcode
    function on_software_interrupt
        inc r8d
        iretq
    done on_software_interrupt
    function on_hardware_interrupt
        inc r8d
        movabs [{end_of_interrupt}], eax
        iretq
    done on_hardware_interrupt
    .balign 4096
    .text
    "#,
    vector = const VECTOR,
    // Fixed delivery, asserted, to this vCPU itself.
    to_self = const 0x44000 + VECTOR + 1,
    interrupt_command = const 0xfee0_0300_u32,
    end_of_interrupt = const 0xfee0_00b0_u32,
    fresh_segment = const FRESH_SEGMENT,
);

/// Of `int`; the hardware interrupt has the next.
const VECTOR: u64 = 0x30;
const INVALID_OPCODE: u64 = 6;
const TASK: u64 = 0x18;
/// A data segment whose accessed bit is clear.
const FRESH_SEGMENT: u64 = 0x28;
/// The local APIC's register that switches it on, and its value: on, spurious vector 0xff.
const SPURIOUS: u64 = 0xfee0_00f0;
const APIC_ON: u32 = 0x1ff;
/// Present and writable, not accessed, not dirty.
const FRESH_ENTRY: u64 = 3;

unsafe extern "C" {
    safe fn invalid_opcode(line: u64) -> u64;
    safe fn software_interrupt(line: u64) -> u64;
    safe fn hardware_interrupt(line: u64) -> u64;
    safe fn load_segment(line: u64) -> u64;
    safe fn walk_to_read(line: u64) -> u64;
    safe fn walk_to_write(line: u64) -> u64;
    static on_invalid_opcode: u8;
    static on_software_interrupt: u8;
    static on_hardware_interrupt: u8;
}

type Case = extern "C" fn(u64) -> u64;

guest::main!(main);

fn main() {
    make_table();
    make_descriptors();
    let deliver: [Case; 3] = [invalid_opcode, software_interrupt, hardware_interrupt];
    for case in deliver {
        check(1, case);
    }
    check(2, invalid_opcode);
    check(3, invalid_opcode);
    check(4, invalid_opcode);
    check(4, load_segment);
    check(5, walk_to_read);
    check(5, walk_to_write);
    checkpoint(6, 0, 0, 0);
    idt::load();
    println!("each was delivered once");
    verdict::success();
}

/// Every case returns 1: a handler that ran once, or a word that is 1.
fn check(number: u64, case: Case) {
    checkpoint(number, 0, 0, (case as *const ()).expose_provenance() as u64);
    let counted = case(tables::FREE);
    if counted != 1 {
        failure!("case of checkpoint {number}: {counted} instead of 1");
    }
}

/// Puts `TABLE` in the place of the last-level table that `tables` made.
fn make_table() {
    tables::map(tables::FREE, DATA.address(), Use::ReadWrite);
    for offset in (0..PAGE_SIZE).step_by(8) {
        access::write(TABLE.address() + offset, DATA.address() | FRESH_ENTRY);
    }
    let entry = tables::place(tables::FREE, 1);
    access::write(entry, TABLE.address() | access::read(entry) & !tables::ADDRESS);
    access::write(DATA.address() + 0x10, 1);
    tables::forget_all();
}

fn make_descriptors() {
    let gdt = GDT.address();
    let tss = TSS.address();
    let segments = segments::KERNEL.into_iter().chain(segments::task(tss)).chain([0x00cf_9200_0000_ffff]);
    for (offset, segment) in (0..).step_by(8).zip(segments) {
        access::write(gdt + offset, segment);
    }
    // The first of the stacks that gates name lies at offset 36.
    let top = STACK.address() + PAGE_SIZE;
    access::write(tss + 32, top << 32);
    access::write(tss + 40, top >> 32);
    gate(INVALID_OPCODE, (&raw const on_invalid_opcode).expose_provenance() as u64);
    gate(VECTOR, (&raw const on_software_interrupt).expose_provenance() as u64);
    gate(VECTOR + 1, (&raw const on_hardware_interrupt).expose_provenance() as u64);
    let (gdt_pointer, idt_pointer) = (Pointer(0xfff, gdt), Pointer(0xfff, IDT.address()));
    // SAFETY: the tables are complete and static; the APIC's registers are identity mapped.
    unsafe {
        asm!(
            "lgdt [{gdt}]", "lidt [{idt}]", "ltr {task:x}", "mov dword ptr [{spurious}], {on:e}",
            gdt = in(reg) &raw const gdt_pointer, idt = in(reg) &raw const idt_pointer, task = in(reg) TASK,
            spurious = in(reg) SPURIOUS, on = in(reg) APIC_ON,
            options(nostack, preserves_flags)
        );
    }
}

/// A present 64-bit interrupt gate on the first named stack.
fn gate(vector: u64, handler: u64) {
    let at = IDT.address() + vector * 16;
    let [low, high] = idt::gate(handler, 1);
    access::write(at, low);
    access::write(at + 8, high);
}
