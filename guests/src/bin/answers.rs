//! What a listener may do to a vCPU by its answer: put it elsewhere with other registers, keep a register from being written.
//!
//! Hardware: a VM exit comes before the instruction, and VM entry loads RIP, RSP and RFLAGS from where the hypervisor keeps them. What the
//! hypervisor writes there meanwhile is what the guest goes on with.
//!
//! Xen: an answer with `SET_REGISTERS` sets the general registers, RFLAGS and RIP; one with `DENY` keeps the write to CR0, CR3, CR4 or a
//! model-specific register from happening that its event told of, and the vCPU goes on behind the instruction.
//!
//! What this proves: a function is skipped and returns what the listener says, as often as it is called, each time with the flags and the
//! stack of its caller. A register that was not to be written has its old value, and the instruction behind the write is the next one.
//!
//! Symbols: `SKIPPED`, a function on a page of its own, which counts its calls, returns 0x1111 and changes every flag; `ROUNDS`, whose
//! first word is how often it is called (4, unless a consumer writes another number there); `FOUND`, with what the guest found, a word each:
//!
//! | word of `FOUND` | what |
//! |---|---|
//! | 0 | the sum of what the calls returned |
//! | 1 | how often the function ran |
//! | 2 | how many calls came back with another stack, or, where the function did not run, with other flags |
//! | 3 to 6 | whether a write to CR0, CR3, CR4 and STAR happened |
//! | 7 | how often the instruction behind such a write ran |
//!
//! | checkpoint | what follows |
//! |---|---|
//! | 1 | the calls |
//! | 2 | the writes |
//! | 3 | end |

#![no_std]
#![no_main]

use core::arch::asm;
use guest::{access, checkpoint, failure, verdict};

guest::pages!(
    /// How often the function is called.
    ROUNDS: 1
);
guest::pages!(
    /// What the guest found.
    FOUND: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    function SKIPPED
        inc qword ptr [FOUND + 8]
        xor ecx, 0x8d5
        push rcx
        popfq
        mov eax, 0x1111
        ret
    done SKIPPED
    .balign 4096
    # Calls it with the flags in rdi; rdx: whether the stack is another one, rcx: the flags afterwards.
    function ANSWERS_CALL
        push rbx
        mov rcx, rdi
        mov rbx, rsp
        push rdi
        popfq
        call SKIPPED
        pushfq
        pop rcx
        xor edx, edx
        cmp rbx, rsp
        setne dl
        mov rsp, rbx
        pop rbx
        ret
    done ANSWERS_CALL
    # Each writes what is in rdi and counts what comes behind.
    function ANSWERS_CR0
        mov cr0, rdi
        inc qword ptr [FOUND + 56]
        ret
    done ANSWERS_CR0
    function ANSWERS_CR3
        mov cr3, rdi
        inc qword ptr [FOUND + 56]
        ret
    done ANSWERS_CR3
    function ANSWERS_CR4
        mov cr4, rdi
        inc qword ptr [FOUND + 56]
        ret
    done ANSWERS_CR4
    function ANSWERS_STAR
        mov ecx, 0xc0000081
        mov rax, rdi
        mov rdx, rdi
        shr rdx, 32
        wrmsr
        inc qword ptr [FOUND + 56]
        ret
    done ANSWERS_STAR
    .text
    "#
);

unsafe extern "C" {
    safe fn ANSWERS_CR0(value: u64);
    safe fn ANSWERS_CR3(value: u64);
    safe fn ANSWERS_CR4(value: u64);
    safe fn ANSWERS_STAR(value: u64);
}

/// CF, PF, AF, ZF, SF and OF; bit 1 is always set.
const ARITHMETIC: u64 = 0x8d5;
const ALWAYS: u64 = 2;
/// What the function itself returns.
const OWN: u64 = 0x1111;
/// Alignment checks, which are looked at in user mode alone.
const CR0_AM: u64 = 1 << 18;
/// The page tables are not cached.
const CR3_PCD: u64 = 1 << 4;
/// `rdtsc` is the kernel's.
const CR4_TSD: u64 = 1 << 2;

guest::main!(main);

fn main() {
    for word in 0..8 {
        set(word, 0);
    }
    access::write(ROUNDS.address(), 4);
    checkpoint(1, ROUNDS.address(), FOUND.address(), 0);
    calls();
    checkpoint(2, 0, 0, 0);
    writes();
    checkpoint(3, 0, 0, 0);
    if found(2) != 0 {
        failure!("{} calls came back with another stack or other flags", found(2));
    }
    if found(7) != 4 {
        failure!("what comes behind a write ran {} times where 4 are due", found(7));
    }
    verdict::success();
}

fn calls() {
    for round in 0..access::read(ROUNDS.address()) {
        // Every combination of flags, in an order that is none.
        let flags = round.wrapping_mul(0x9e37_79b9) & ARITHMETIC | ALWAYS;
        let ran = found(1);
        let (returned, moved, left): (u64, u64, u64);
        // SAFETY: the function keeps the callee's registers and changes the others that are named.
        unsafe {
            asm!(
                "call ANSWERS_CALL",
                in("rdi") flags, out("rax") returned, out("rdx") moved, out("rcx") left, clobber_abi("sysv64"),
            );
        }
        set(0, found(0).wrapping_add(returned));
        let kept = found(1) != ran || left == flags;
        set(2, found(2) + u64::from(moved != 0 || !kept));
        if found(1) != ran && returned != OWN {
            failure!("the function ran and returned {returned:#x}");
        }
    }
}

fn writes() {
    let (cr0, cr3, cr4): (u64, u64, u64);
    // SAFETY: reads registers.
    unsafe { asm!("mov {}, cr0", "mov {}, cr3", "mov {}, cr4", out(reg) cr0, out(reg) cr3, out(reg) cr4) };
    ANSWERS_CR0(cr0 ^ CR0_AM);
    ANSWERS_CR3(cr3 ^ CR3_PCD);
    ANSWERS_CR4(cr4 ^ CR4_TSD);
    let star = read_star();
    ANSWERS_STAR(star ^ 0x0010_0008_0000_0000);
    let (new_cr0, new_cr3, new_cr4): (u64, u64, u64);
    // SAFETY: as above.
    unsafe { asm!("mov {}, cr0", "mov {}, cr3", "mov {}, cr4", out(reg) new_cr0, out(reg) new_cr3, out(reg) new_cr4) };
    for (word, happened) in (3..).zip([cr0 != new_cr0, cr3 != new_cr3, cr4 != new_cr4, star != read_star()]) {
        set(word, u64::from(happened));
    }
}

fn read_star() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: the register is there in long mode.
    unsafe { asm!("rdmsr", in("rcx") 0xc000_0081_u64, out("rax") low, out("rdx") high) };
    high << 32 | low & 0xffff_ffff
}

fn found(word: u64) -> u64 {
    access::read(FOUND.address() + word * 8)
}

fn set(word: u64, value: u64) {
    access::write(FOUND.address() + word * 8, value);
}
