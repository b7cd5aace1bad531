//! A guest's guest: this guest is a hypervisor itself, and runs code under SVM with nested paging.
//!
//! Hardware: an address of the inner guest goes through its own page tables, then through the nested tables that its hypervisor gave it, and
//! then through those of the hypervisor below, where a page may be forbidden. `vmrun`, `vmload` and `vmsave` use a control block at
//! a physical address.
//!
//! Xen: an access of a nested guest to a page that its p2m forbids is reported as one of the vCPU, with the inner guest's linear address.
//!
//! What this proves: accesses and fetches of the inner guest are the vCPU's, with its linear address, whether it pages by itself or not; so
//! are those to a control block, without one. Such an access was once said to be a device's, and such a fetch made no event.
//!
//! Symbols: `DATA`, written by the inner guest, `CODE`, which it runs, `BLOCK`, the control block.
//!
//! Checkpoints, each before what is meant to be watched: 1 `DATA`, written without paging of the inner guest's own; 2 `CODE`, fetched; 3 `DATA`,
//! written by the inner guest's paging; 4 `BLOCK`, written by `vmsave`; 5 `BLOCK`, read by `vmrun`; 6: end.

#![no_std]
#![no_main]

use core::arch::asm;

use guest::cpu::cpuid;
use guest::page::PAGE_SIZE;
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, skip, verdict};

guest::pages!(
    /// The control block.
    BLOCK: 1
);
guest::pages!(
    /// What the inner guest writes.
    DATA: 1
);
guest::pages!(
    /// Where the processor keeps the hypervisor's state.
    HOST: 1
);
guest::pages!(
    /// The nested tables: of the first GiB as it is, and of two pages at the second.
    NESTED: 5
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global CODE
    .type CODE, @object
    CODE:
    .code32
        mov dword ptr [{inner} + 0x10], 0x1234
        mov ebx, [{inner} + 0x20]
        .byte 0x0f, 0x01, 0xd9          # vmmcall
        .balign 256
    .code64
        movabs rax, {free}
        mov dword ptr [rax + 0x18], 0x5678
        .byte 0x0f, 0x01, 0xd9
        .balign 4096
        .size CODE, . - CODE
    # The control block is at rdi.
    function enter
        push rbx
        mov rax, rdi
        .byte 0x0f, 0x01, 0xdd          # clgi
        .byte 0x0f, 0x01, 0xd8          # vmrun
        .byte 0x0f, 0x01, 0xdc          # stgi
        pop rbx
        ret
    done enter
    function save
        mov rax, rdi
        .byte 0x0f, 0x01, 0xdb          # vmsave
        ret
    done save
    "#,
    inner = const INNER,
    free = const tables::FREE,
);

unsafe extern "C" {
    static CODE: u8;
    safe fn enter(block: u64);
    safe fn save(block: u64);
}

/// Where the inner guest has its pages, as it says physical: first `DATA`, then `CODE`.
const INNER: u64 = 1 << 30;
/// Present, writable, user's, accessed, dirty.
const ENTRY: u64 = 0x67;
const LARGE: u64 = 0x80;
const EFER: u32 = 0xc000_0080;
const HOST_STATE: u32 = 0xc001_0117;
const SVME: u64 = 1 << 12;
/// The control block's word of the exit, and what `vmmcall` makes of it.
const EXIT_CODE: u64 = 0x70;
const BY_CALL: u64 = 0x81;

guest::main!(main);

fn main() {
    if cpuid(0x8000_0001, 0)[2] & 4 == 0 {
        skip!("no SVM");
    }
    let code = (&raw const CODE).expose_provenance() as u64;
    prepare(code);
    tables::map(tables::FREE, INNER, Use::ReadWrite);
    be_flat();
    checkpoint(1, DATA.address(), 0, 0);
    run();
    be_flat();
    checkpoint(2, code, 0, 0);
    run();
    be_paged(code + 0x100);
    checkpoint(3, DATA.address(), 0, 0);
    run();
    be_flat();
    checkpoint(4, BLOCK.address(), 0, 0);
    save(BLOCK.address());
    checkpoint(5, BLOCK.address(), 0, 0);
    run();
    checkpoint(6, 0, 0, 0);
    let written = |offset| access::read(DATA.address() + offset) & 0xffff_ffff;
    let (first, second) = (written(0x10), written(0x18));
    if (first, second) != (0x1234, 0x5678) {
        failure!("the inner guest wrote {first:#x} and {second:#x}");
    }
    println!("the inner guest ran four times");
    verdict::success();
}

/// The inner guest is in 32-bit code without paging of its own.
fn be_flat() {
    set(0x558, 0x11); // CR0
    set(0x4d0, SVME); // EFER
    set(0x410, 0xffff_ffff_0c9b_0008); // CS
    set(0x578, INNER + PAGE_SIZE); // RIP
    set(EXIT_CODE, 0);
}

/// It is in 64-bit code, by the hypervisor's own tables, whose addresses are its own.
fn be_paged(rip: u64) {
    set(0x558, 0x8001_0033);
    set(0x550, tables::root()); // CR3
    set(0x548, 0x620); // CR4
    set(0x4d0, SVME | 0x500);
    set(0x410, 0xffff_ffff_0a9b_0008);
    set(0x578, rip);
    set(EXIT_CODE, 0);
}

fn run() {
    enter(BLOCK.address());
    let code = access::read(BLOCK.address() + EXIT_CODE);
    if code != BY_CALL {
        failure!("the inner guest was left with {code:#x}");
    }
}

fn set(offset: u64, value: u64) {
    access::write(BLOCK.address() + offset, value);
}

/// SVM, the nested tables, and what of the control block stays.
fn prepare(code: u64) {
    wrmsr(EFER, rdmsr(EFER) | SVME);
    wrmsr(HOST_STATE, HOST.address());
    let table = |number: u64| NESTED.address() + number * PAGE_SIZE;
    for (at, entry) in [
        (table(0), table(1)),
        (table(1), table(2)),
        (table(1) + 8, table(3)),
        (table(3), table(4)),
        (table(4), DATA.address()),
        (table(4) + 8, code),
    ] {
        access::write(at, entry | ENTRY);
    }
    for number in 0..512 {
        access::write(table(2) + number * 8, number << 21 | ENTRY | LARGE);
    }
    set(0x08, 0x0100_0000_0000_0000); // intercepts: hlt
    set(0x10, 3); // vmrun, vmmcall
    set(0x58, 1); // its number
    set(0x90, 1); // nested paging
    set(0xb0, table(0));
    for segment in [0x400, 0x420, 0x430, 0x440, 0x450] {
        set(segment, 0xffff_ffff_0c93_0010);
    }
    set(0x560, 0x400); // DR7
    set(0x570, 2); // RFLAGS
    set(0x668, 0x0007_0406_0007_0406); // PAT
}

fn rdmsr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: a register that a processor with SVM has.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

fn wrmsr(number: u32, value: u64) {
    // SAFETY: EFER keeps its bits, and the page for the hypervisor's state is used for nothing else.
    unsafe {
        asm!(
            "wrmsr", in("ecx") number, in("rax") value & 0xffff_ffff, in("rdx") value >> 32,
            options(nostack, preserves_flags)
        );
    }
}
