//! A vCPU whose instructions are let through alone while a fast timer and the other vCPUs interrupt it, with NMIs as well.
//!
//! Hardware: a violation that is answered leaves nothing behind, and an interrupt that came meanwhile is taken before the
//! instruction or after it.
//!
//! Xen: emulates the one instruction, and injects what is pending when the vCPU goes on.
//!
//! What this proves: an instruction that is let through runs once, whatever is due before it, after it and while it waits. The handlers touch
//! the watched page too, now and then, and make events of their own.
//!
//! Symbols: `WATCHED`, one page. Checkpoint 1: before, with the interrupts on. Then 100 additions to the page's first word; every 16th
//! interrupt of the timer adds to the second, every 16th of another vCPU to the third; NMIs, which nothing holds off, add to none.
//! Checkpoint 2: the interrupts are off, everything is to be opened. Checkpoint 3: end (arguments: how many accesses there were, interrupts of the timer, of others).

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use guest::segments::Pointer;
use guest::{access, apic, checkpoint, failure, idt, port, println, skip, smp, verdict};

guest::pages!(
    /// Added to.
    WATCHED: 1
);
guest::pages!(
    /// How often the timer came, another vCPU, an NMI.
    COUNTS: 1
);
guest::pages!(
    /// The gates.
    IDT: 1
);

guest::functions!(
    r#"
    .text
    function on_timer
        push rax
        inc qword ptr [COUNTS]
        test byte ptr [COUNTS], 15
        jnz 2f
        add qword ptr [WATCHED + 8], 1
    2:  mov al, 0x20
        out 0x20, al
        pop rax
        iretq
    done on_timer
    function on_other
        push rax
        inc qword ptr [COUNTS + 8]
        test byte ptr [COUNTS + 8], 15
        jnz 2f
        add qword ptr [WATCHED + 16], 1
    2:  xor eax, eax
        movabs [{end_of_interrupt}], eax
        pop rax
        iretq
    done on_other
    function on_nmi
        inc qword ptr [COUNTS + 16]
        iretq
    done on_nmi
    "#,
    end_of_interrupt = const 0xfee0_00b0_u32,
);

const ADDITIONS: u64 = 100;
/// Of the interrupts one in so many adds.
const ONE_IN: u64 = 16;
/// Where the interrupt controller is told to begin: the timer's.
const TIMER: u8 = 0x20;
/// Of other vCPUs.
const OTHER: u8 = 0x30;
const NMI: u8 = 2;
/// Of 1,193,182 Hz: ten thousand interrupts a second.
const DIVISOR: u16 = 119;
/// The channel's mode: a rate, its divisor in two bytes.
const RATE: u8 = 0x34;
/// Between two interrupts that a vCPU sends.
const PAUSE: usize = 2000;

/// 1 when no more interrupts are wanted.
static DONE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    static on_timer: u8;
    static on_other: u8;
    static on_nmi: u8;
}

guest::main!(main);

fn main() {
    if smp::vcpus() < 2 {
        skip!("an interrupt from another vCPU needs two");
    }
    load_gates();
    smp::start(interrupts);
    start_timer();
    checkpoint(1, 0, 0, 0);
    // SAFETY: the interrupts that are not masked have their gates, whose handlers keep all registers.
    unsafe { asm!("sti", "nop") };
    for _ in 0..ADDITIONS {
        access::add(WATCHED.address(), 1);
    }
    // SAFETY: interrupts were disabled before.
    unsafe { asm!("cli") };
    DONE.store(1, Ordering::Release);
    smp::join();
    checkpoint(2, 0, 0, 0);
    let [own, by_timer, by_others] = [0, 8, 16].map(|offset| access::read(WATCHED.address() + offset));
    let [timer, others, nmis] = [0, 8, 16].map(|offset| access::read(COUNTS.address() + offset));
    if (own, by_timer, by_others) != (ADDITIONS, timer / ONE_IN, others / ONE_IN) {
        failure!(
            "{own} of {ADDITIONS} additions, {by_timer} of {timer} interrupts of the timer, {by_others} of {others} of others"
        );
    }
    println!(
        "{} accesses, {timer} interrupts of the timer, {others} of others, {nmis} NMIs",
        own + by_timer + by_others
    );
    checkpoint(3, own + by_timer + by_others, timer, others);
    verdict::success();
}

/// The other vCPUs: each second one sends NMIs.
fn interrupts(vcpu: usize) {
    while DONE.load(Ordering::Acquire) == 0 {
        if vcpu.is_multiple_of(2) {
            apic::nmi_first();
        } else {
            apic::interrupt_first(OTHER);
        }
        for _ in 0..PAUSE {
            core::hint::spin_loop();
        }
    }
}

fn load_gates() {
    for (vector, handler) in [(TIMER, &raw const on_timer), (OTHER, &raw const on_other), (NMI, &raw const on_nmi)] {
        let handler = handler.expose_provenance() as u64;
        let at = IDT.address() + u64::from(vector) * 16;
        let [low, high] = idt::gate(handler, 0);
        access::write(at, low);
        access::write(at + 8, high);
    }
    let pointer = Pointer(0xfff, IDT.address());
    // SAFETY: the table is static, and its gates lead to the handlers above.
    unsafe { asm!("lidt [{idt}]", idt = in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

fn start_timer() {
    // The first interrupt controller: begins at the vector, has a second one at 2, ends by command; all masked but the timer.
    for (register, value) in [(0x20, 0x11), (0x21, TIMER), (0x21, 4), (0x21, 1), (0x21, 0xfe), (0xa1, 0xff)] {
        port::write_u8(register, value);
    }
    let [low, high] = DIVISOR.to_le_bytes();
    for (register, value) in [(0x43, RATE), (0x40, low), (0x40, high)] {
        port::write_u8(register, value);
    }
}
