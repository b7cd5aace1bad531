//! A timer whose interrupts are due all the time, while the vCPU waits for a consumer's answers.
//!
//! Hardware: an exit stops the processor between two instructions. As long as its hypervisor does not enter it again, no interrupt is
//! delivered: no handler runs, and no frame is written on a stack.
//!
//! Xen: a paused vCPU is not entered. A listener that looks at the guest's memory meanwhile sees it stand still.
//!
//! What this proves: no interrupt comes while the vCPU waits for an answer, however long that takes, though the timer's is due; it is only late.
//! The instructions in question never begin a block of a translator's, so an interrupt's return address names one of them only if it came
//! while the vCPU was stopped there.
//!
//! Symbols: `WATCHED`: read and written. In each of four rounds, each time after the timer came: a read, a write, and a write of CR3.
//!
//! Checkpoint 1: start. Checkpoint 2: end (arguments: how often the timer came, and how often it came at one of the three).

#![no_std]
#![no_main]

use core::arch::asm;
use guest::segments::Pointer;
use guest::{access, checkpoint, failure, idt, port, println, verdict};

guest::pages!(
    /// Read and written.
    WATCHED: 1
);
guest::pages!(
    /// How often the timer came; how often at one of the three instructions.
    TICKS: 1
);
guest::pages!(
    /// The gate.
    IDT: 1
);

guest::functions!(
    r#"
    .text
    function paused_read
        nop
    paused_at_read:
        mov rax, [rdi]
        ret
    done paused_read
    function paused_write
        nop
    paused_at_write:
        mov [rdi], rsi
        ret
    done paused_write
    # The same tables, differently cached.
    function paused_tables
        mov rax, cr3
        xor rax, 0x10
    paused_at_tables:
        mov cr3, rax
        ret
    done paused_tables
    function on_timer
        push rax
        push rcx
        inc qword ptr [TICKS]
        mov rax, [rsp + 16]
        lea rcx, [rip + paused_at_read]
        cmp rax, rcx
        je 2f
        lea rcx, [rip + paused_at_write]
        cmp rax, rcx
        je 2f
        lea rcx, [rip + paused_at_tables]
        cmp rax, rcx
        jne 3f
    2:  inc qword ptr [TICKS + 8]
    3:  mov al, 0x20
        out 0x20, al
        pop rcx
        pop rax
        iretq
    done on_timer
    "#,
);

const ROUNDS: u64 = 4;
/// The timer's interrupt, where the controller is told to begin.
const VECTOR: u8 = 0x20;
/// Of 1,193,182 Hz: a thousand interrupts a second.
const DIVISOR: u16 = 1193;
/// The channel's mode: a rate, its divisor in two bytes.
const RATE: u8 = 0x34;

unsafe extern "C" {
    safe fn paused_read(address: u64) -> u64;
    safe fn paused_write(address: u64, value: u64);
    safe fn paused_tables();
    static on_timer: u8;
}

guest::main!(main);

fn main() {
    load_gate();
    start_timer();
    checkpoint(1, 0, 0, 0);
    // SAFETY: the only interrupt that is not masked has its gate, whose handler keeps all registers.
    unsafe { asm!("sti", "nop") };
    for round in 0..ROUNDS {
        await_a_tick();
        let found = paused_read(WATCHED.address());
        if found != round {
            failure!("read {found} where {round} is due");
        }
        await_a_tick();
        paused_write(WATCHED.address(), round + 1);
        await_a_tick();
        paused_tables();
    }
    // SAFETY: interrupts were disabled before.
    unsafe { asm!("cli") };
    let [ticks, inside] = [0, 8].map(|offset| access::read(TICKS.address() + offset));
    checkpoint(2, ticks, inside, 0);
    if inside != 0 {
        failure!("the timer came {inside} times while the vCPU was to be stopped");
    }
    println!("the timer came between");
    verdict::success();
}

fn await_a_tick() {
    let before = access::read(TICKS.address());
    while access::read(TICKS.address()) == before {
        core::hint::spin_loop();
    }
}

fn load_gate() {
    let handler = (&raw const on_timer).expose_provenance() as u64;
    let at = IDT.address() + u64::from(VECTOR) * 16;
    let [low, high] = idt::gate(handler, 0);
    access::write(at, low);
    access::write(at + 8, high);
    let pointer = Pointer(0xfff, IDT.address());
    // SAFETY: the table is static, and its one gate leads to the handler above.
    unsafe { asm!("lidt [{idt}]", idt = in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

fn start_timer() {
    // The first interrupt controller: begins at the vector, has a second one at 2, ends by command; all masked but the timer.
    for (register, value) in [(0x20, 0x11), (0x21, VECTOR), (0x21, 4), (0x21, 1), (0x21, 0xfe), (0xa1, 0xff)] {
        port::write_u8(register, value);
    }
    let [low, high] = DIVISOR.to_le_bytes();
    for (register, value) in [(0x43, RATE), (0x40, low), (0x40, high)] {
        port::write_u8(register, value);
    }
}
