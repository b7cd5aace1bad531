//! Code that a consumer overwrites.
//!
//! Hardware: a processor that comes back from the hypervisor fetches anew. What was written meanwhile, by whomever, is what runs.
//!
//! Xen: a consumer writes through a foreign mapping, and leaves the rest to the hardware. Listeners put breakpoints into code so.
//!
//! What this proves: it holds also where code ran before and was translated. A translator sees the guest's own stores to code and those of
//! its devices; a store from outside it does not see.
//!
//! Symbols: `CODE`, a page with a function that returns a number, and at 0x100 one that reads `DATA` and jumps to the first, and at 0x200
//! one that reads `DATA` and returns another number; `DUE`, whose first word is the number that is due; `DATA`, a page; `MORE`, whose first
//! word is how many rounds are still to come (one, unless a consumer writes another number there).
//!
//! | checkpoint | what follows |
//! |---|---|
//! | 1 | before each round: a call of the first function (argument: rounds so far) |
//! | 2 | a call of the second; the number that is due is read after it |
//! | 3 | a call of the third; the same |
//! | 4 | end |

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// What code reads while it is overwritten.
    DATA: 1
);
guest::pages!(
    /// The number that is due.
    DUE: 1
);
guest::pages!(
    /// How many rounds are still to come.
    MORE: 1
);

const FIRST: u64 = 0x1111_1111_1111_1111;

global_asm!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global CODE
    .type CODE, @object
    CODE:
    movabs rax, {first}
    ret
    .org CODE + 0x100
    mov rax, [DATA]
    jmp CODE
    .org CODE + 0x200
    mov rax, [DATA]
    movabs rax, {first}
    ret
    .balign 4096
    .size CODE, 4096
    .text
    "#,
    first = const FIRST,
);

unsafe extern "C" {
    static CODE: u8;
}

guest::main!(main);

fn main() {
    let code = (&raw const CODE).expose_provenance() as u64;
    access::write(DATA.address(), 1);
    access::write(MORE.address(), 1);
    access::write(DUE.address(), FIRST);
    for at in [0, 0x100, 0x200] {
        call("before anything", code + at);
    }
    let mut rounds = 0;
    while access::read(MORE.address()) > 0 {
        checkpoint(1, rounds, 0, 0);
        call("in a round", code);
        rounds += 1;
        access::write(MORE.address(), access::read(MORE.address()) - 1);
    }
    checkpoint(2, 0, 0, 0);
    call("that jumps into what is overwritten", code + 0x100);
    checkpoint(3, 0, 0, 0);
    call("that is overwritten in the middle", code + 0x200);
    checkpoint(4, 0, 0, 0);
    println!("what was written is what ran");
    verdict::success();
}

fn call(what: &str, at: u64) {
    let returned = access::call(at);
    let due = access::read(DUE.address());
    if returned != due {
        failure!("code {what} returned {returned:#x} instead of {due:#x}");
    }
}
