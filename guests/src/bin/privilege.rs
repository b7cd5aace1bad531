//! Ring 3, read-only pages, SMAP, SMEP, no-execute, protection keys, reserved bits; one page of code at several addresses.
//!
//! Hardware: the guest's page tables say which code may do what: user code only on user pages, the kernel's writes on read-only pages only
//! without CR0.WP, its accesses to user pages under SMAP only with EFLAGS.AC, its fetches from them not under SMEP, no fetches
//! from a no-execute page, data accesses to user pages as PKRU says of the page's key. What they forbid is a page fault of the guest's own, and EPT is not asked.
//!
//! Xen: gets this from the processor.
//!
//! What this proves: for each rule, the access that it forbids makes the guest's page fault with the right error code and no
//! event; the same access where the rule allows it makes the event.
//!
//! Symbol `WATCHED`: three pages, mapped from the 1 TiB line on as user page, kernel page without execution, read-only user page, after
//! a page of user code. Checkpoint 1 comes before each case (the third argument is the case's function), checkpoint 2 after it.
//!
//! | case | accesses: event, or page fault with its code |
//! |---|---|
//! | `privilege_ring_3` | read and write of the user page; read of the kernel page 5; read, and write 7, of the read-only page |
//! | `privilege_write_protect` | write of the read-only page 3, then the same with CR0.WP clear: event |
//! | `privilege_smap` | read of the user page 1, then the same with EFLAGS.AC set: event |
//! | `privilege_smep` | call into the user page 0x11, then the same with CR4.SMEP clear: event |
//! | `privilege_no_execute` | call into the kernel page 0x11, then a read of it: event |
//! | `privilege_keys` | read and write of the user page under a key that forbids access 0x21, 0x23; read of another page: event; under one that forbids writes: read event, write 0x23; none: write event |
//! | `privilege_kernel_keys` | the same on the kernel's page, by IA32_PKRS |
//! | `privilege_reserved_bit` | read of a page whose entry has a reserved bit 0x09, of another page: event, of the page without it: event |
//! | `privilege_without_nxe` | read of the no-execute page without EFER.NXE 0x09, of another page: event, with it: event |
//!
//! Checkpoint 3 comes before each `privilege_shared_…`: `user_code`, watched too, runs where it lies, at the 1 TiB line, and there in ring 3,
//! as a shared library does; `shared`, in it, reads from the page behind it, which is `SHARED_DATA` where it lies and the user page at
//! the line. Each fetch and each read has the address of its own mapping.

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::page::PAGE_SIZE;
use guest::segments::{self, Pointer};
use guest::tables::{self, Use};
use guest::{access, checkpoint, cpu, failure, println, skip, verdict};

guest::pages!(
    /// Segments.
    GDT: 1
);
guest::pages!(
    /// The stack of handlers that interrupt user code.
    STACK: 1
);
guest::pages!(
    /// A task state, which names the stack.
    TSS: 1
);
guest::pages!(
    /// User page, kernel page, read-only page.
    WATCHED: 3
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .macro change_cr4 operation:req, bits:req
    mov rcx, cr4
    \operation ecx, \bits
    mov cr4, rcx
    .endm
    .macro change_cr0 operation:req, bits:req
    mov rcx, cr0
    \operation ecx, \bits
    mov cr0, rcx
    .endm

    # Mapped at the 1 TiB line, where rdi points. Accesses to memory have seven bytes each.
    function user_code
        mov rax, [rdi + 0x1110]
        mov [rdi + 0x1118], rax
        mov rax, [rdi + 0x2110]
        mov rax, [rdi + 0x3110]
        mov [rdi + 0x3118], rax
        syscall
    done user_code
    # Goes on at r8.
    function shared
        mov rax, [rip + user_code + 0x1120]
        jmp r8
    done shared
    function shared_end
        syscall
    done shared_end
    .balign 4096
    .global SHARED_DATA
    .type SHARED_DATA, @object
    SHARED_DATA:
        .skip 0x120
        .quad 0x100
        .balign 4096
    .size SHARED_DATA, . - SHARED_DATA

    function privilege_ring_3
        push rbx
        push rbp
        mov rbx, rsp
        mov rcx, rdi
        mov r11d, 2
        sysretq
        .global privilege_from_user
    privilege_from_user:
        mov rsp, rbx
        pop rbp
        pop rbx
        ret
    done privilege_ring_3
    function privilege_write_protect
        mov eax, 5
        mov [rdi + 0x3118], rax
        change_cr0 and, 0xfffeffff
        mov [rdi + 0x3118], rax
        change_cr0 or, 0x10000
        ret
    done privilege_write_protect
    function privilege_smap
        change_cr4 or, 0x200000
        mov rax, [rdi + 0x1110]
        stac
        mov rax, [rdi + 0x1110]
        clac
        change_cr4 and, 0xffdfffff
        ret
    done privilege_smap
    function privilege_smep
        lea rdx, [rdi + 0x1000]
        change_cr4 or, 0x100000
        call rdx
        change_cr4 and, 0xffefffff
        call rdx
        ret
    done privilege_smep
    function privilege_no_execute
        lea rdx, [rdi + 0x2000]
        call rdx
        mov rax, [rdi + 0x2110]
        ret
    done privilege_no_execute
    function privilege_keys
        mov rax, cr4
        or eax, 0x400000
        mov cr4, rax
        mov r8d, 0x4                    # key 1: no access
        call 5f
        mov rax, [rdi + 0x1110]
        mov [rdi + 0x1118], rax
        mov rcx, [rdi + 0x3110]         # between: an event of its own
        mov r8d, 0x8                    # key 1: no write
        call 5f
        mov rax, [rdi + 0x1110]
        mov [rdi + 0x1118], rax
        xor r8d, r8d
        call 5f
        mov rax, [rdi + 0x1110]
        mov [rdi + 0x1118], rax
        mov rcx, cr4
        and ecx, 0xffbfffff
        mov cr4, rcx
        ret
    5:  mov eax, r8d
        xor ecx, ecx
        xor edx, edx
        wrpkru
        ret
    done privilege_keys
    # The kernel's page has key 2, by IA32_PKRS.
    function privilege_kernel_keys
        change_cr4 or, 0x1000000
        mov r8d, 0x10                   # no access
        call 5f
        mov rax, [rdi + 0x2110]
        mov [rdi + 0x2118], rax
        mov rcx, [rdi + 0x3110]         # between: an event of its own
        mov r8d, 0x20                   # no write
        call 5f
        mov rax, [rdi + 0x2110]
        mov [rdi + 0x2118], rax
        xor r8d, r8d
        call 5f
        mov rax, [rdi + 0x2110]
        mov [rdi + 0x2118], rax
        mov r9, rax
        change_cr4 and, 0xfeffffff
        mov rax, r9
        ret
    5:  mov eax, r8d
        mov ecx, 0x6e1
        xor edx, edx
        wrmsr
        ret
    done privilege_kernel_keys
    # Bit 51 of the entry, which no processor of fewer address bits has.
    function privilege_reserved_bit
        mov rdx, [rip + privilege_entry]
        bts qword ptr [rdx], 51
        invlpg [rdi + 0x1000]
        mov rax, [rdi + 0x1110]
        mov rcx, [rdi + 0x3110]         # between: an event of its own
        btr qword ptr [rdx], 51
        invlpg [rdi + 0x1000]
        mov rax, [rdi + 0x1110]
        ret
    done privilege_reserved_bit
    # The page's entry forbids execution.
    function privilege_without_nxe
        mov ecx, 0xc0000080
        rdmsr
        btr eax, 11
        wrmsr
        invlpg [rdi + 0x2000]
        mov rax, [rdi + 0x2110]
        mov rcx, [rdi + 0x3110]         # between: an event of its own
        mov ecx, 0xc0000080
        rdmsr
        bts eax, 11
        wrmsr
        mov rax, [rdi + 0x2110]
        ret
    done privilege_without_nxe
    .pushsection .bss
    .balign 8
    .global privilege_entry
    privilege_entry: .skip 8
    .popsection
    # Where something of user_code lies at the line.
    .macro at_line register:req, name:req
    lea rax, [rip + user_code]
    lea \register, [rip + \name]
    sub \register, rax
    add \register, rdi
    .endm
    function privilege_shared_where_it_lies
        lea r8, [rip + 7f]
        jmp shared
    7:  ret
    done privilege_shared_where_it_lies
    function privilege_shared_at_the_line
        at_line r9, shared
        lea r8, [rip + 7f]
        jmp r9
    7:  ret
    done privilege_shared_at_the_line
    function privilege_shared_in_ring_3
        push rbx
        push rbp
        mov rbx, rsp
        at_line rcx, shared
        at_line r8, shared_end
        mov r11d, 2
        sysretq
    done privilege_shared_in_ring_3
    .global privilege_return
    privilege_return:
        ret
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    static user_code: u8;
    static privilege_from_user: u8;
    static privilege_return: u8;
    static privilege_entry: u8;
    safe fn privilege_ring_3(line: u64) -> u64;
    safe fn privilege_write_protect(line: u64) -> u64;
    safe fn privilege_smap(line: u64) -> u64;
    safe fn privilege_smep(line: u64) -> u64;
    safe fn privilege_no_execute(line: u64) -> u64;
    safe fn privilege_keys(line: u64) -> u64;
    safe fn privilege_kernel_keys(line: u64) -> u64;
    safe fn privilege_reserved_bit(line: u64) -> u64;
    safe fn privilege_without_nxe(line: u64) -> u64;
    safe fn privilege_shared_where_it_lies(line: u64) -> u64;
    safe fn privilege_shared_at_the_line(line: u64) -> u64;
    safe fn privilege_shared_in_ring_3(line: u64) -> u64;
}

const PAGE_FAULT: u64 = 14;
const FETCH: u64 = 1 << 4;
/// Bytes of each instruction that may fault on data.
const LENGTH: u64 = 7;
const TASK: u64 = 0x18;
/// Accessed, dirty and present.
const PRESENT: u64 = 0x61;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;
/// Protection keys 1 and 2.
const KEY: u64 = 1 << 59;
const KERNEL_KEY: u64 = 2 << 59;
const WORD: u64 = 0x7072_6976_696c_6567;
/// `mov eax, 7; ret`, with a byte to spare.
const CODE: u64 = 0x90_c300_0000_07b8;

/// Page faults of the case: their codes, a byte each, the last in the lowest.
static FAULTS: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    // SMEP and SMAP.
    if cpu::cpuid(7, 0)[1] & (1 << 7 | 1 << 20) != 1 << 7 | 1 << 20 {
        skip!("this processor has no SMEP or no SMAP");
    }
    map();
    make_descriptors();
    idt::on_exception(met);
    for page in 0..3 {
        access::write(WATCHED.address() + page * PAGE_SIZE, CODE);
        access::write(WATCHED.address() + page * PAGE_SIZE + 0x110, WORD + page);
    }
    access::write(WATCHED.address() + 0x120, 0x1000);
    check(privilege_ring_3, WORD + 2, 0x0507);
    check(privilege_write_protect, 5, 0x03);
    check(privilege_smap, WORD, 0x01);
    check(privilege_smep, 7, 0x11);
    check(privilege_no_execute, WORD + 1, 0x11);
    check_at(3, privilege_shared_where_it_lies, 0x100, 0);
    check_at(3, privilege_shared_at_the_line, 0x1000, 0);
    check_at(3, privilege_shared_in_ring_3, 0x1000, 0);
    if cpu::cpuid(7, 0)[2] & 1 << 3 != 0 {
        check(privilege_keys, WORD, 0x21_2323);
    } else {
        println!("no protection keys here: their case is left out");
    }
    if cpu::cpuid(7, 0)[2] & 1 << 31 != 0 {
        check(privilege_kernel_keys, WORD + 1, 0x21_2323);
    } else {
        println!("no protection keys for the kernel's pages here: their case is left out");
    }
    if cpu::cpuid(0x8000_0008, 0)[0] & 0xff < 52 {
        access::write((&raw const privilege_entry).addr() as u64, tables::place(tables::FREE + PAGE_SIZE, 0));
        check(privilege_reserved_bit, WORD, 0x09);
    } else {
        println!("addresses have 52 bits here: the case of a reserved one is left out");
    }
    check(privilege_without_nxe, WORD + 1, 0x09);
    for (offset, due) in [(0x118, WORD), (2 * PAGE_SIZE + 0x118, 5)] {
        let found = access::read(WATCHED.address() + offset);
        if found != due {
            failure!("{found:#x} at {offset:#x} instead of {due:#x}");
        }
    }
    println!("each rule's page fault came, and nothing else");
    verdict::success();
}

fn check(case: extern "C" fn(u64) -> u64, due: u64, faults: u64) {
    check_at(1, case, due, faults);
}

fn check_at(number: u64, case: extern "C" fn(u64) -> u64, due: u64, faults: u64) {
    let about = (case as *const ()).expose_provenance() as u64;
    FAULTS.store(0, Ordering::Relaxed);
    checkpoint(number, 0, 0, about);
    let returned = case(tables::FREE);
    checkpoint(2, 0, 0, about);
    let seen = FAULTS.load(Ordering::Relaxed);
    if (returned, seen) != (due, faults) {
        failure!("returned {returned:#x} after faults {seen:#x} instead of {due:#x} after {faults:#x}");
    }
}

/// Goes on behind an instruction that faulted, or returns from a call that could not be fetched.
fn met(exception: Exception) -> Option<u64> {
    if exception.vector != PAGE_FAULT {
        return None;
    }
    // QEMU leaves out of a reserved bit's code that the entry was present.
    let code = exception.code | exception.code >> 3 & 1;
    FAULTS.store(FAULTS.load(Ordering::Relaxed) << 8 | code, Ordering::Relaxed);
    let behind = exception.rip + LENGTH;
    Some(if exception.code & FETCH != 0 { (&raw const privilege_return).addr() as u64 } else { behind })
}

/// The four pages at the 1 TiB line.
fn map() {
    let user = (&raw const user_code).expose_provenance() as u64;
    let watched = WATCHED.address();
    tables::map(tables::FREE, user, Use::Read);
    for level in [3, 2, 1] {
        let entry = tables::place(tables::FREE, level);
        access::write(entry, access::read(entry) | USER);
    }
    let pages = [
        user | USER,
        watched | USER | WRITABLE | KEY,
        (watched + PAGE_SIZE) | WRITABLE | NO_EXECUTE | KERNEL_KEY,
        (watched + 2 * PAGE_SIZE) | USER,
    ];
    for (entry, page) in (tables::place(tables::FREE, 0)..).step_by(8).zip(pages) {
        access::write(entry, page | PRESENT);
    }
    tables::forget_all();
}

/// The runtime's segments, a task state whose kernel stack is `STACK`, and the user's segments where SYSRET expects them.
fn make_descriptors() {
    let (gdt, tss) = (GDT.address(), TSS.address());
    let kernel = segments::KERNEL.into_iter().chain(segments::task(tss));
    let user = [0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];
    for (offset, segment) in (0..).step_by(8).zip(kernel.chain(user)) {
        access::write(gdt + offset, segment);
    }
    // The kernel's stack lies at offset 4.
    let top = STACK.address() + PAGE_SIZE;
    access::write(tss, top << 32);
    access::write(tss + 8, top >> 32);
    let pointer = Pointer(0xfff, gdt);
    let entry = (&raw const privilege_from_user).expose_provenance() as u64;
    // SAFETY: the tables are complete and static. EFER.SCE, STAR (kernel from 0x08, user from 0x28) and LSTAR make SYSCALL go
    // to the code above.
    unsafe {
        asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const pointer, in(reg) TASK, options(nostack, preserves_flags));
        asm!(
            "rdmsr", "or eax, 1", "wrmsr",
            "mov ecx, 0xc0000081", "xor eax, eax", "mov edx, 0x00280008", "wrmsr",
            "mov ecx, 0xc0000082", "mov rax, {entry}", "mov rdx, {entry}", "shr rdx, 32", "wrmsr",
            entry = in(reg) entry, inout("ecx") 0xc000_0080_u32 => _, out("eax") _, out("edx") _,
            options(nostack)
        );
    }
}
