//! Instructions that a hypervisor may have exit to it although the guest may execute them.
//!
//! Hardware: `cpuid` and `vmcall` always exit under Intel's extensions, `cpuid` where it is asked for under AMD's; so do, where that is asked for,
//! the instructions that store or load the registers of descriptor tables, and those that use ports; `xsetbv` in any case. The hypervisor does the instruction in
//! the guest's place, and puts RIP behind it.
//!
//! Xen: a listener that asked for it is told of `cpuid` with leaf, subleaf and length, synchronously; the registers of the request hold what
//! the guest is to get, and RIP is still the instruction's. A listener that wants the guest to go on sets RIP behind the instruction
//! (`SET_REGISTERS`), and with it any other values in EAX, EBX, ECX and EDX. One that only answers has the guest execute the instruction again, by
//! what it returned. Of descriptor tables and ports it is told too, and answers that the instruction be emulated. `vmcall` with the number of
//! `HVMOP_guest_request_vm_event` is the guest's own wish for an event.
//!
//! What this proves: the instructions return the same with and without a listener that only answers, and what the listener says where it says
//! something; what comes behind runs once. Without a listener `vmcall` is an invalid instruction.
//!
//! Symbols: `FOUND`: what the instructions returned last, a word each:
//!
//! | word | what |
//! |---|---|
//! | 0, 1 | EAX and EBX, ECX and EDX of leaf 0 |
//! | 2, 3 | the bases of GDTR and IDTR |
//! | 4 | the selectors of LDTR and TR |
//! | 5 | RAX behind the request: 0, or what it was |
//! | 6, 7 | as the first two, of leaf 0x40000000, subleaf 7 |
//!
//! | checkpoint | when |
//! |---|---|
//! | 1 to 4 | before each round; in the last one a listener may say what leaf 0x40000000 returns |
//! | 5 | end |

#![no_std]
#![no_main]

use guest::cpu::cpuid;
use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, verdict};

guest::pages!(
    /// What the instructions returned.
    FOUND: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    # Leaf in edi, subleaf in esi; rdx: where what is returned goes.
    function EXITS_CPUID
        push rbx
        mov r8, rdx
        mov eax, edi
        mov ecx, esi
        cpuid
        mov [r8], eax
        mov [r8 + 4], ebx
        mov [r8 + 8], ecx
        mov [r8 + 12], edx
        pop rbx
        ret
    done EXITS_CPUID
    # With `FOUND` in rdi: stores each register, and loads what it has stored.
    function EXITS_TABLES
        xor ecx, ecx
        sgdt [rdi + 0x80]
        lgdt [rdi + 0x80]
        sidt [rdi + rcx * 2 + 0x90]
        lidt [rip + FOUND + 0x90]
        sldt eax
        lldt ax
        str word ptr [rdi + 0x22]
        mov [rdi + 0x20], ax
        mov rax, [rdi + 0x82]
        mov [rdi + 0x10], rax
        mov rax, [rdi + 0x92]
        mov [rdi + 0x18], rax
        ret
    done EXITS_TABLES
    # The same, a change and back.
    function EXITS_XCR0
        mov rax, cr4
        or eax, 0x40000
        mov cr4, rax
        xor ecx, ecx
        xgetbv
        xsetbv
        xor eax, 2
        xsetbv
        xor eax, 2
        xsetbv
        ret
    done EXITS_XCR0
    # The port of the firmware's diagnostics, which takes anything.
    function EXITS_PORTS
        cld
        mov edx, 0x80
        mov eax, 0x5a5a
        out 0x80, al
        out dx, eax
        in ax, dx
        lea rsi, [rip + FOUND]
        outsb
        ret
    done EXITS_PORTS
    # Returns what is in RAX behind the call.
    function EXITS_REQUEST
        mov eax, 34
        mov edi, 24
        .global exits_vmcall
        exits_vmcall: vmcall
        inc qword ptr [rip + FOUND + 0x40]
        ret
    done EXITS_REQUEST
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn EXITS_CPUID(leaf: u32, subleaf: u32, found: u64);
    safe fn EXITS_TABLES(found: u64);
    safe fn EXITS_PORTS();
    safe fn EXITS_XCR0();
    safe fn EXITS_REQUEST() -> u64;
    static exits_vmcall: u8;
}

/// Where hypervisors say who they are.
const HYPERVISOR: u32 = 0x4000_0000;
const ROUNDS: u64 = 4;
/// Words of `FOUND`.
const WORDS: usize = 8;
/// Of these each round finds the same, whatever a listener says.
const SAME: usize = 5;
/// In ECX of leaf 1.
const XSAVE: u32 = 1 << 26;
const INVALID: u64 = 6;
/// `vmcall` has three bytes.
const LENGTH: u64 = 3;

guest::main!(main);

fn main() {
    idt::on_exception(met);
    // Asked before anybody is told of it.
    let has_states = cpuid(1, 0)[2] & XSAVE != 0;
    let first = round(1, has_states);
    for number in 2..=ROUNDS {
        let found = round(number, has_states);
        if found[..SAME] != first[..SAME] {
            failure!("round {number}: {found:x?} where {first:x?} is due");
        }
        if behind() != number {
            failure!("what comes behind the request ran {} times in {number} rounds", behind());
        }
    }
    checkpoint(ROUNDS + 1, FOUND.address(), 0, 0);
    verdict::success();
}

fn round(number: u64, has_states: bool) -> [u64; WORDS] {
    checkpoint(number, FOUND.address(), 0, 0);
    for word in 0..WORDS as u64 {
        access::write(FOUND.address() + word * 8, 0);
    }
    EXITS_CPUID(0, 0, FOUND.address());
    EXITS_CPUID(HYPERVISOR, 7, FOUND.address() + 0x30);
    EXITS_TABLES(FOUND.address());
    EXITS_PORTS();
    if has_states {
        EXITS_XCR0();
    }
    access::write(FOUND.address() + 0x28, EXITS_REQUEST());
    core::array::from_fn(|word| access::read(FOUND.address() + word as u64 * 8))
}

/// How often the instruction behind the request has run.
fn behind() -> u64 {
    access::read(FOUND.address() + 0x40)
}

/// No hypervisor takes the request.
fn met(exception: Exception) -> Option<u64> {
    let is_request = exception.vector == INVALID && exception.rip == (&raw const exits_vmcall).addr() as u64;
    is_request.then_some(exception.rip + LENGTH)
}
