//! A checkpoint in an interrupt's handler, met while the vCPU stands at another one.
//!
//! Hardware: an interrupt is taken between two instructions; its handler runs on the interrupted code's stack and returns to it. A
//! debugger that stops a processor before an instruction must let it take interrupts, and must not take the handler's own stop for
//! the one that was interrupted, nor the return from the handler for another arrival.
//!
//! vCPU 0 reaches checkpoint 1 with interrupts enabled. As soon as a consumer writes 1 to `READY`, vCPU 1 sends vCPU 0 an
//! interrupt, whose handler reaches checkpoint 2. Where `READY` was written before vCPU 0 went on from checkpoint 1, it waits for the
//! interrupt there. Checkpoint 3 has in its arguments how often checkpoint 1 was passed and how often the handler's was: once
//! each. Both are 64-bit words behind `READY` too: `READY` + 8 and `READY` + 0x10.

#![no_std]
#![no_main]

use core::arch::asm;
use guest::segments::Pointer;
use guest::{access, apic, checkpoint, failure, idt, println, skip, smp, verdict};

guest::pages!(
    /// The interrupt is wanted; how often checkpoint 1 was passed; how often the handler's was.
    READY: 1
);
guest::pages!(
    /// The gate.
    IDT: 1
);

guest::functions!(
    r#"
    .text
    function on_interrupt
        push rax
        push rcx
        push rdx
        push rsi
        push rdi
        mov edi, 2
        xor esi, esi
        xor edx, edx
        xor ecx, ecx
        call checkpoint
        inc qword ptr [READY + 0x10]
        xor eax, eax
        movabs [{end_of_interrupt}], eax
        pop rdi
        pop rsi
        pop rdx
        pop rcx
        pop rax
        iretq
    done on_interrupt
    "#,
    end_of_interrupt = const 0xfee0_00b0_u32,
);

const VECTOR: u64 = 0x30;
const PASSED: u64 = 8;
const HANDLED: u64 = 0x10;
/// vCPU 0 has no more use for the interrupt.
const DONE: u64 = 0x18;

unsafe extern "C" {
    static on_interrupt: u8;
}

guest::main!(main);

fn main() {
    if smp::vcpus() < 2 {
        skip!("an interrupt from another vCPU needs two");
    }
    load_gate();
    smp::start(send);
    // SAFETY: the only interrupt that is not masked has its gate, whose handler keeps all registers.
    unsafe { asm!("sti", "nop") };
    checkpoint(1, 0, 0, 0);
    access::write(READY.address() + PASSED, access::read(READY.address() + PASSED) + 1);
    while access::read(READY.address()) == 1 && access::read(READY.address() + HANDLED) == 0 {
        core::hint::spin_loop();
    }
    // SAFETY: interrupts were disabled before.
    unsafe { asm!("cli") };
    access::write(READY.address() + DONE, 1);
    smp::join();
    let [ready, passed, handled] = [0, PASSED, HANDLED].map(|offset| access::read(READY.address() + offset));
    checkpoint(3, passed, handled, 0);
    if (passed, handled) != (1, ready) {
        failure!("passed checkpoint 1 {passed} times, the handler's {handled} times, and {ready} was asked for");
    }
    println!("each was passed once");
    verdict::success();
}

/// vCPU 1.
fn send(_: usize) {
    while access::read(READY.address() + DONE) == 0 {
        if access::read(READY.address()) == 1 {
            apic::interrupt_first(u8::try_from(VECTOR).expect("a vector"));
            return;
        }
        core::hint::spin_loop();
    }
}

fn load_gate() {
    let handler = (&raw const on_interrupt).expose_provenance() as u64;
    let at = IDT.address() + VECTOR * 16;
    let [low, high] = idt::gate(handler, 0);
    access::write(at, low);
    access::write(at + 8, high);
    let pointer = Pointer(0xfff, IDT.address());
    // SAFETY: the table is static, and its one gate leads to the handler above. The PC's own interrupt controllers are masked.
    unsafe {
        asm!(
            "lidt [{idt}]", "mov al, 0xff", "out 0x21, al", "out 0xa1, al",
            idt = in(reg) &raw const pointer, out("al") _, options(nostack, preserves_flags)
        );
    }
}
