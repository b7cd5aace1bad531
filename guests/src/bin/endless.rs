//! Loops that never end by themselves: whoever wants them to end puts their vCPUs elsewhere.
//!
//! Hardware: a processor between two instructions is its registers. A hypervisor that enters it with others has it do something else.
//!
//! Xen: pauses a domain, reads and sets its vCPUs' contexts, and lets it go on.
//!
//! What this proves: what is read of a vCPU that was stopped anywhere is what its program put there; what is set is what it goes on with, flags
//! and stack included; and a paused domain does nothing.
//!
//! One that is stopped there gets what is injected, which its handler tells; one that is halted is woken by it.
//!
//! Symbols: `MET`: how many exceptions came, the last one's vector, error code, CR2 and address. `COUNTS`: a word for each vCPU, one more in each
//! round; of a third vCPU one more each time that it is woken from `hlt`, with interrupts off. `endless_loop`, `endless_out`: R8 to R11 hold 0x88.., 0x99.. and so on
//! in the loop, RDI the vCPU's word; `endless_out` returns R8 to the caller, and what RFLAGS were there.
//!
//! Checkpoint 1: all vCPUs are about to loop (argument: where `COUNTS` is). Checkpoint 2, one for each vCPU: it is out (arguments: its number, what
//! R8 was, what RFLAGS was).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering};
use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, smp, verdict};

guest::needs!(consumer);

guest::pages!(
    /// What each vCPU counts.
    COUNTS: 1
);

guest::pages!(
    /// What exceptions came.
    MET: 1
);

guest::functions!(
    r#"
    .text
    function endless_loop
        push rbx
        mov rbx, rsi
        mov r8, 0x8888888888888888
        mov r9, 0x9999999999999999
        mov r10, 0xaaaaaaaaaaaaaaaa
        mov r11, 0xbbbbbbbbbbbbbbbb
    2:  mov rax, [rdi]
        add rax, 1
        mov [rdi], rax
        jmp 2b
    done endless_loop
    function endless_out
        pushfq
        pop rax
        mov [rbx], rax
        mov rax, r8
        pop rbx
        ret
    done endless_out
    "#,
);

unsafe extern "C" {
    safe fn endless_loop(count: u64, flags: u64) -> u64;
}

static READY: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

/// The vCPU that only sleeps.
const SLEEPER: usize = 2;

fn main() {
    idt::on_exception(met);
    for word in 0..5 {
        access::write(MET.address() + 8 * word, 0);
    }
    access::write(COUNTS.address(), 0);
    smp::start(work);
    work(0);
    smp::join();
    verdict::success();
}

fn sleeps(count: u64) -> ! {
    for times in 1.. {
        // SAFETY: interrupts are off, so only what is injected ends it.
        unsafe { core::arch::asm!("hlt", options(nomem, nostack, preserves_flags)) };
        access::write(count, times);
    }
    unreachable!("a count has no end");
}

fn met(Exception { vector, code, rip }: Exception) -> Option<u64> {
    let address: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    for (word, value) in (1..).zip([vector, code, address, rip]) {
        access::write(MET.address() + 8 * word, value);
    }
    access::write(MET.address(), access::read(MET.address()) + 1);
    Some(rip)
}

fn work(vcpu: usize) {
    if READY.fetch_add(1, Ordering::AcqRel) + 1 == smp::vcpus() {
        checkpoint(1, COUNTS.address(), 0, 0);
        READY.fetch_add(1, Ordering::AcqRel);
    }
    smp::wait_for(&READY, smp::vcpus() + 1);
    if vcpu == SLEEPER {
        sleeps(COUNTS.address() + 8 * vcpu as u64);
    }
    let mut flags = 0u64;
    let found = endless_loop(COUNTS.address() + 8 * vcpu as u64, (&raw mut flags).expose_provenance() as u64);
    // SAFETY: the function wrote it.
    let flags = unsafe { (&raw const flags).read_volatile() };
    checkpoint(2, vcpu as u64, found, flags);
    if found == 0x8888_8888_8888_8888 {
        failure!("vCPU {vcpu} came out with the register that it went in with");
    }
}
