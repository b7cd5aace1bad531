//! Instructions that a hypervisor may have exit to it although the guest may execute them.
//!
//! Hardware: `cpuid` always exits under Intel's extensions, and where it is asked for under AMD's. The hypervisor does the instruction in the
//! guest's place, and puts RIP behind it.
//!
//! Xen: a listener that asked for it is told of `cpuid` with leaf, subleaf and length, synchronously; the registers of the request hold what
//! the guest is to get, and RIP is still the instruction's. A listener that wants the guest to go on sets RIP behind the instruction
//! (`SET_REGISTERS`), and with it any other values in EAX, EBX, ECX and EDX. One that only answers has the guest execute the instruction again, by
//! what it returned.
//!
//! What this proves: the instructions return the same with and without a listener that only answers, and what the listener says where it says
//! something; what comes behind runs once.
//!
//! Symbols: `FOUND`: what the instructions returned last, a word each:
//!
//! | word | what |
//! |---|---|
//! | 0, 1 | EAX and EBX, ECX and EDX of leaf 0 |
//! | 2, 3 | the same of leaf 0x40000000, subleaf 7 |
//!
//! | checkpoint | when |
//! |---|---|
//! | 1 to 4 | before each round; in the last one a listener may say what leaf 0x40000000 returns |
//! | 5 | end |

#![no_std]
#![no_main]

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
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn EXITS_CPUID(leaf: u32, subleaf: u32, found: u64);
}

/// Where hypervisors say who they are.
const HYPERVISOR: u32 = 0x4000_0000;
const ROUNDS: u64 = 4;
/// Words of `FOUND`.
const WORDS: usize = 4;

guest::main!(main);

fn main() {
    let first = round(1);
    for number in 2..=ROUNDS {
        let found = round(number);
        // In the last round a listener may have said something about the hypervisor's leaf.
        let own = if number == ROUNDS { 2 } else { WORDS };
        if found[..own] != first[..own] {
            failure!("round {number}: {found:x?} where {first:x?} is due");
        }
    }
    checkpoint(ROUNDS + 1, FOUND.address(), 0, 0);
    verdict::success();
}

fn round(number: u64) -> [u64; WORDS] {
    checkpoint(number, FOUND.address(), 0, 0);
    for word in 0..WORDS as u64 {
        access::write(FOUND.address() + word * 8, 0);
    }
    EXITS_CPUID(0, 0, FOUND.address());
    EXITS_CPUID(HYPERVISOR, 7, FOUND.address() + 16);
    core::array::from_fn(|word| access::read(FOUND.address() + word as u64 * 8))
}
