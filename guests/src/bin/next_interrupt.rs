//! Everything that is delivered through the IDT, each after a word of the guest's that a listener answers.
//!
//! Hardware: exceptions, `int n`, interrupts and the NMI all go through the IDT. A hypervisor that injects one at VM entry says vector, type, error code,
//! and before a page fault sets CR2.
//!
//! Xen: an answer with `GET_NEXT_INTERRUPT` has the next one told that Xen is about to deliver to that vCPU: once, before its handler runs, the vCPU
//! stopped. So a consumer that injected a page fault sees whether that came or something else before it.
//!
//! What this proves: each kind is told once, with its vector, type, error code and CR2, and is then delivered once; one that nobody asked for
//! is not told.
//!
//! Symbols: none are needed. Before each case the guest executes `cpuid` with leaf 0x1000_0000 and the case's number: the listener asks there. Cases:
//! 1 `ud2`, 2 a page fault by a write to `NOWHERE`, 3 `int 26`, 4 `int3`, 5 an interrupt of the local APIC's, which ends a `hlt`, 6 an NMI, 7 `int 27`, `int
//! 28` and `ud2`. Checkpoint 1 comes before them, 2 is the end.

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::{apic, checkpoint, failure, port, verdict};

guest::functions!(
    r#"
    function undefined
        ud2
        ret
    done undefined
    function fault
        mov [rdi], rax
        ret
    done fault
    function software
        int 26
        ret
    done software
    function breakpoint
        int3
        ret
    done breakpoint
    function halts
        sti
        hlt
        cli
        ret
    done halts
    function returns
        nop
        ret
    done returns
    function several
        int 27
        int 28
        ud2
        ret
    done several
    "#
);

unsafe extern "C" {
    safe fn undefined(address: u64);
    safe fn fault(address: u64);
    safe fn software(address: u64);
    safe fn breakpoint(address: u64);
    safe fn halts(address: u64);
    safe fn returns(address: u64);
    safe fn several(address: u64);
}

const LEAVES: u32 = 0x1000_0000;
/// Mapped nowhere.
const NOWHERE: u64 = 0x7000_0000_0abc;
const NMI: u64 = 2;
const UNDEFINED: u64 = 6;
const PAGE_FAULT: u64 = 14;
const INTERRUPT: u8 = 31;

/// Which vectors came, a bit each, and how many.
static CAME: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(met);
    // The PC's own timer shall not interrupt.
    port::write_u8(0x21, 0xff);
    port::write_u8(0xa1, 0xff);
    apic::begin();
    checkpoint(1, 0, 0, 0);
    case(1, undefined, &[UNDEFINED]);
    case(2, fault, &[PAGE_FAULT]);
    case(3, software, &[26]);
    case(4, breakpoint, &[3]);
    ask(5);
    apic::interrupt_first(INTERRUPT);
    call(5, halts, &[INTERRUPT.into()]);
    ask(6);
    apic::nmi_first();
    call(6, returns, &[NMI]);
    case(7, several, &[27, 28, UNDEFINED]);
    checkpoint(2, 0, 0, 0);
    verdict::success();
}

fn case(number: u32, function: extern "C" fn(u64), due: &[u64]) {
    ask(number);
    call(number, function, due);
}

/// What a listener answers.
fn ask(number: u32) {
    // SAFETY: `cpuid` changes these registers alone; RBX is the compiler's.
    unsafe {
        asm!("push rbx", "cpuid", "pop rbx", inout("eax") LEAVES + number => _, out("ecx") _, out("edx") _);
    }
}

fn call(number: u32, function: extern "C" fn(u64), due: &[u64]) {
    function(NOWHERE);
    let (came, count) = (CAME.swap(0, Ordering::Relaxed), COUNT.swap(0, Ordering::Relaxed));
    let wanted = due.iter().fold(0, |all, vector| all | 1 << vector);
    if came != wanted || count != due.len() as u64 {
        failure!("case {number}: {count} came, vectors {came:#x}, where {wanted:#x} is due");
    }
}

fn met(Exception { vector, rip, .. }: Exception) -> Option<u64> {
    CAME.fetch_or(1 << vector, Ordering::Relaxed);
    COUNT.fetch_add(1, Ordering::Relaxed);
    match vector {
        UNDEFINED => Some(rip + 2),
        PAGE_FAULT => Some(rip + 3),
        _ if vector == u64::from(INTERRUPT) => {
            apic::end_of_interrupt();
            Some(rip)
        }
        NMI | 3 | 26..=28 => Some(rip),
        _ => None,
    }
}
