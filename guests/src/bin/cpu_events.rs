//! Writes to control registers and model-specific registers, breakpoints, single steps.
//!
//! Hardware: a hypervisor may have `mov` to CR0, CR3 and CR4, `wrmsr`, the breakpoint exception and each single instruction
//! exit to it.
//!
//! Xen: `hvm_monitor_cr` reports a control register's write before it takes effect, with the new and the old value, and none that
//! changes nothing; a model-specific register's as well, also where it changes nothing. A synchronous event stops the vCPU until its
//! answer, an asynchronous one does not. A register that is not there is not written. A breakpoint is reported before the guest gets it.
//!
//! What this proves: each of them, in the modes off, asynchronous, synchronous, with and without "changes only"; and that the
//! guest goes on right: its tables are those that CR3 names, its #BP comes once, a refused write is a #GP and no event.
//!
//! Symbols: `TABLE_A`, `TABLE_B`: two top-level page tables, the same but for the 1 TiB line, where they lead to `DATA_A` and
//! `DATA_B`; `STEP_A`, `STEP_B`: pages that a function reads before it does its few steps; `steps_end`: where they end.
//!
//! | checkpoint | when | arguments |
//! |---|---|---|
//! | 1 to 4 | before each case; the mode that is meant: off, asynchronous, synchronous, synchronous and changes only | the third is the case's function |
//! | 5, 6 | before the steps that begin with a read of `STEP_A`, of `STEP_B` | the third is the function |
//! | 7 | end | |

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::page::PAGE_SIZE;
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// The page tables that the guest runs on.
    TABLE_A: 1
);
guest::pages!(
    /// The same, but for one page.
    TABLE_B: 1
);
guest::pages!(
    /// What the 1 TiB line is by the one.
    DATA_A: 1
);
guest::pages!(
    /// What it is by the other.
    DATA_B: 1
);
guest::pages!(
    /// Read before the steps.
    STEP_A: 1
);
guest::pages!(
    /// Read before the steps.
    STEP_B: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    # Each takes the value to write and returns 0.
    function cpu_write_cr0
        mov cr0, rdi
        xor eax, eax
        ret
    done cpu_write_cr0
    function cpu_write_cr3
        mov cr3, rdi
        xor eax, eax
        ret
    done cpu_write_cr3
    function cpu_write_cr4
        mov cr4, rdi
        xor eax, eax
        ret
    done cpu_write_cr4
    function cpu_write_star
        mov ecx, 0xc0000081
        mov rax, rdi
        mov rdx, rdi
        shr rdx, 32
        wrmsr
        xor eax, eax
        ret
    done cpu_write_star
    # A register of the local APIC's second mode, which is off.
    function cpu_write_refused
        mov ecx, 0x808
        xor eax, eax
        xor edx, edx
        .global cpu_refused
        cpu_refused: wrmsr
        xor eax, eax
        ret
    done cpu_write_refused
    function cpu_breakpoint
        int3
        xor eax, eax
        ret
    done cpu_breakpoint

    function cpu_clear_task_switched
        clts
        xor eax, eax
        ret
    done cpu_clear_task_switched

    # Takes the page to read first, returns 30.
    function cpu_steps
        mov rcx, [rdi]
        mov ecx, 15
        push rcx
        pop rdx
        nop
        add ecx, edx
        jmp steps_end
    done cpu_steps
    .balign 4096
    function steps_end
        mov eax, ecx
        ret
    done steps_end
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn cpu_write_cr0(value: u64) -> u64;
    safe fn cpu_write_cr3(value: u64) -> u64;
    safe fn cpu_write_cr4(value: u64) -> u64;
    safe fn cpu_write_star(value: u64) -> u64;
    safe fn cpu_write_refused(value: u64) -> u64;
    static cpu_refused: u8;
    safe fn cpu_breakpoint(value: u64) -> u64;
    safe fn cpu_clear_task_switched(value: u64) -> u64;
    safe fn cpu_steps(page: u64) -> u64;
}

/// CR0.AM: without EFLAGS.AC it changes nothing.
const ALIGNMENT_MASK: u64 = 1 << 18;
/// CR4.TSD: stops programs from reading the time stamp counter, and there are none.
const TIME_STAMP_DISABLE: u64 = 1 << 2;
/// `wrmsr` has two bytes.
const LENGTH: u64 = 2;
const BREAKPOINT: u64 = 3;
const GENERAL_PROTECTION: u64 = 13;

static BREAKPOINTS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(met);
    two_tables();
    cpu_write_cr3(TABLE_A.address());
    let (cr0, cr4) = (control(0), control(4));
    for mode in 1..=4 {
        case(mode, cpu_write_cr0, &[cr0 ^ ALIGNMENT_MASK, cr0 ^ ALIGNMENT_MASK, cr0]);
        case(mode, cpu_clear_task_switched, &[0]);
        tables_are_switched(mode);
        case(mode, cpu_write_cr4, &[cr4 ^ TIME_STAMP_DISABLE, cr4 ^ TIME_STAMP_DISABLE, cr4]);
        case(mode, cpu_write_star, &[0x0012_3456_789a_bcde, 0x0012_3456_789a_bcde]);
        case(mode, cpu_write_refused, &[0]);
        case(mode, cpu_breakpoint, &[0]);
        check("breakpoints", BREAKPOINTS.load(Ordering::Relaxed), mode);
        check("refused writes", REFUSED.load(Ordering::Relaxed), mode);
        check("CR0", control(0), cr0);
        check("CR4", control(4), cr4);
    }
    for (number, page) in [(5, &STEP_A), (6, &STEP_B)] {
        checkpoint(number, page.address(), 0, address(cpu_steps));
        check("steps", cpu_steps(page.address()), 30);
    }
    checkpoint(7, 0, 0, 0);
    println!("{} breakpoints, {} refused writes", BREAKPOINTS.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    verdict::success();
}

fn case(mode: u64, function: extern "C" fn(u64) -> u64, values: &[u64]) {
    checkpoint(mode, 0, 0, address(function));
    for value in values {
        function(*value);
    }
}

fn address(function: extern "C" fn(u64) -> u64) -> u64 {
    (function as *const ()).expose_provenance() as u64
}

fn check(what: &str, found: u64, due: u64) {
    if found != due {
        failure!("{what}: {found:#x} instead of {due:#x}");
    }
}

/// After each write the 1 TiB line is what the new table says.
fn tables_are_switched(mode: u64) {
    checkpoint(mode, 0, 0, address(cpu_write_cr3));
    for (table, data) in [(&TABLE_B, &DATA_B), (&TABLE_B, &DATA_B), (&TABLE_A, &DATA_A)] {
        cpu_write_cr3(table.address());
        check("the 1 TiB line", access::read(tables::FREE), data.address());
    }
}

fn two_tables() {
    const ENTRY: u64 = tables::FREE >> 39;
    for data in [&DATA_A, &DATA_B] {
        access::write(data.address(), data.address());
    }
    tables::map(tables::FREE, DATA_A.address(), Use::Read);
    tables::map(tables::FREE + (1 << 39), DATA_B.address(), Use::Read);
    let boot = control(3);
    for offset in (0..PAGE_SIZE).step_by(8) {
        let entry = access::read(boot + offset);
        access::write(TABLE_A.address() + offset, entry);
        access::write(TABLE_B.address() + offset, entry);
    }
    access::write(TABLE_B.address() + ENTRY * 8, access::read(boot + (ENTRY + 1) * 8));
}

fn met(exception: Exception) -> Option<u64> {
    match exception.vector {
        BREAKPOINT => {
            BREAKPOINTS.fetch_add(1, Ordering::Relaxed);
            Some(exception.rip)
        }
        GENERAL_PROTECTION if exception.rip == (&raw const cpu_refused).addr() as u64 => {
            REFUSED.fetch_add(1, Ordering::Relaxed);
            Some(exception.rip + LENGTH)
        }
        _ => None,
    }
}

/// CR0, CR3 or CR4.
fn control(number: u32) -> u64 {
    let value;
    // SAFETY: reading a control register changes nothing.
    unsafe {
        match number {
            0 => asm!("mov {}, cr0", out(reg) value, options(nomem, nostack, preserves_flags)),
            3 => asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)),
            _ => asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)),
        }
    }
    value
}
