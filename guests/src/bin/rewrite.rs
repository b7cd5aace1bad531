//! Code that is rewritten again and again.
//!
//! Hardware: a store to code is seen by the next fetch. Software that translates code, as QEMU does, must translate it anew each time.
//!
//! Xen: has nothing to do with it; a page is watched or not, whatever lies in it.
//!
//! What this proves: what is kept for each translation is given back. However often the code is rewritten, a plugin that keeps something about
//! its instructions has no more of it in the end than early on.
//!
//! Symbols: `CODE`, a page with a function that returns a number; `DATA`, a page that the function reads; `MORE`, whose first word is
//! how many rounds are still to come (one, unless a consumer writes another number there). Checkpoint 1: before each round of 5,000
//! rewrites, each followed by a call (argument: rewrites so far). Checkpoint 2: end.

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// What the rewritten code reads.
    DATA: 1
);
guest::pages!(
    /// How many rounds are still to come.
    MORE: 1
);

/// Rewrites a round.
const ROUND: u64 = 5000;
/// `movabs rax, …` has two bytes before its number.
const NUMBER_AT: u64 = 2;

global_asm!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global CODE
    .type CODE, @object
    CODE:
    movabs rax, 0
    add rax, [DATA]
    ret
    .balign 4096
    .size CODE, 4096
    .text
    "#
);

unsafe extern "C" {
    static CODE: u8;
}

guest::main!(main);

fn main() {
    let code = (&raw const CODE).expose_provenance() as u64;
    tables::map(tables::FREE, code, Use::ReadWrite);
    access::write(DATA.address(), 1);
    access::write(MORE.address(), 1);
    let mut rewrites = 0;
    while access::read(MORE.address()) > 0 {
        checkpoint(1, rewrites, 0, 0);
        for _ in 0..ROUND {
            rewrites += 1;
            access::write(tables::FREE + NUMBER_AT, rewrites);
            let returned = access::call(code);
            if returned != rewrites + 1 {
                failure!("code that was rewritten {rewrites} times returned {returned}");
            }
        }
        access::write(MORE.address(), access::read(MORE.address()) - 1);
    }
    checkpoint(2, rewrites, 0, 0);
    println!("each rewrite was seen");
    verdict::success();
}
