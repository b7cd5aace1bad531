//! Debug exceptions that no instruction asks for: the guest's own single steps, and its debug registers.
//!
//! Hardware: with RFLAGS.TF each instruction is followed by #DB, the one after that which set the flag first. A debug register names an address: of
//! an instruction #DB comes before it, of data behind the instruction that wrote there. DR6 says why: BS, or B0 to B3. It is the guest's to
//! clear.
//!
//! Xen: a hypervisor that has #DB exit to it is told the same by the exit, and `hvm_monitor_debug` tells a listener: the type is that of a hardware
//! exception, and no instruction has a length. An asynchronous event only tells. Who wants the guest to have it injects it again; else the
//! guest goes on as if nothing had been. Recorded of Xen 4.17: two events for `popf` and `nop`, the step behind each of the two instructions that follow.
//!
//! What this proves: each is told before its delivery, where the vCPU stands; the guest gets what was injected, once, with DR6 as it is without a
//! listener, and nothing of what was not.
//!
//! Symbols: `SEEN`, a page of functions whose exceptions the guest is to get; `UNSEEN`, a page of the same whose exceptions a listener may
//! keep from it; `DATA`, what a debug register watches; `GOT`, a word a call: how many exceptions came.
//!
//! Checkpoints 1 to 6 come before calls in `SEEN`, twice each: steps, a write, an instruction; 7 and 8 before calls in `UNSEEN`: steps, a write. 9 is the
//! end.

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, verdict};

guest::pages!(
    /// What is watched.
    DATA: 1
);
guest::pages!(
    /// How many came, a word a call.
    GOT: 1
);

guest::functions!(
    r#"
    .macro steps
        pushfq
        or qword ptr [rsp], 0x100
        popfq
        nop
        pushfq
        and qword ptr [rsp], -0x101
        popfq
        ret
    .endm
    .macro store
        mov [rdi], rdi
        nop
        ret
    .endm

    .section .code_pages, "ax", @progbits
    .balign 4096
    function SEEN
        steps
    done SEEN
    function seen_store
        store
    done seen_store
    function seen_break
        nop
        ret
    done seen_break
    .balign 4096
    function UNSEEN
        steps
    done UNSEEN
    function unseen_store
        store
    done unseen_store
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn SEEN(data: u64);
    safe fn seen_store(data: u64);
    safe fn seen_break(data: u64);
    safe fn UNSEEN(data: u64);
    safe fn unseen_store(data: u64);
}

const DEBUG: u64 = 1;
/// Behind `nop`, `pushfq`, `and` and `popfq`.
const STEPS: u64 = 4;
/// Of DR6.
const BS: u64 = 1 << 14;
const B0: u64 = 1;
const B1: u64 = 2;
/// Of DR7: register 0, of instructions; register 1, of eight bytes that are written.
const BREAK_0: u64 = 0b10;
const WRITE_1: u64 = 0b1000 | 0b1001 << 20;

/// How often the handler ran, and what DR6 said then.
static MET: AtomicU64 = AtomicU64::new(0);
static CAUSES: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(met);
    for round in 0..2 {
        call(3 * round + 1, SEEN, 0, (STEPS, BS));
        call(3 * round + 2, seen_store, WRITE_1, (1, B1));
        call(3 * round + 3, seen_break, BREAK_0, (1, B0));
    }
    call(7, UNSEEN, 0, (STEPS, BS));
    call(8, unseen_store, WRITE_1, (1, B1));
    checkpoint(9, 0, 0, 0);
    verdict::success();
}

fn call(number: u64, function: extern "C" fn(u64), control: u64, (times, causes): (u64, u64)) {
    checkpoint(number, MET.load(Ordering::Relaxed), 0, 0);
    MET.store(0, Ordering::Relaxed);
    CAUSES.store(0, Ordering::Relaxed);
    set_debug((seen_break as *const () as u64, DATA.address()), control);
    function(DATA.address());
    set_debug((0, 0), 0);
    let came = (MET.load(Ordering::Relaxed), CAUSES.load(Ordering::Relaxed));
    access::write(GOT.address() + (number - 1) * 8, came.0);
    let may_miss = number > 6;
    if came != (times, causes) && !(may_miss && came == (0, 0)) {
        failure!(
            "call {number}: {} debug exceptions came, DR6 {:#x}, where {times} are due, {causes:#x}",
            came.0,
            came.1
        );
    }
}

fn met(exception: Exception) -> Option<u64> {
    if exception.vector != DEBUG {
        return None;
    }
    let status: u64;
    // SAFETY: reads and writes a register.
    unsafe {
        asm!("mov {}, dr6", out(reg) status, options(nomem, nostack, preserves_flags));
        asm!("mov dr6, {}", in(reg) 0_u64, options(nomem, nostack, preserves_flags));
    }
    MET.fetch_add(1, Ordering::Relaxed);
    CAUSES.fetch_or(status & (BS | 0xf), Ordering::Relaxed);
    if status & B0 != 0 {
        // Else it would come again, before the same instruction.
        set_debug((0, 0), 0);
    }
    Some(exception.rip)
}

/// DR0 and DR1, and DR7.
fn set_debug((first, second): (u64, u64), control: u64) {
    // SAFETY: writes registers; what comes of it is this guest's own exception.
    unsafe {
        asm!("mov dr7, {}", in(reg) 0x400_u64, options(nomem, nostack, preserves_flags));
        asm!("mov dr0, {}", in(reg) first, options(nomem, nostack, preserves_flags));
        asm!("mov dr1, {}", in(reg) second, options(nomem, nostack, preserves_flags));
        asm!("mov dr7, {}", in(reg) 0x400 | control, options(nomem, nostack, preserves_flags));
    }
}
