//! Code that is rewritten, code that may not run.
//!
//! Hardware: a fetch needs the execute right in EPT, for every page that the instruction's bytes lie in. A write to code
//! needs the write right, whatever linear address it goes through; the next fetch sees the new bytes.
//!
//! Xen: reports a fetch without the right as a violation with x, at the byte that could not be fetched.
//!
//! What this proves: it holds also where code was translated before and runs again. A translator fetches when it
//! translates, and then no more: who relies on that misses the second run.
//!
//! Symbols: `CODE`, a page with a function that returns a number; `REACHES`, two pages, with an instruction that begins in the
//! first and ends in the second; `DATA`, a page that a function in `REACHES` reads before it jumps into `CODE`.
//!
//! | checkpoint | what follows | meant rights before |
//! |---|---|---|
//! | 1 | a call of `CODE`, a write of the number through another address, a call | `CODE` rx |
//! | 2 | a call of `CODE` | `CODE` rw |
//! | 3 | a call of `REACHES` | its second page rw |
//! | 4 | a read of `DATA` by code that then jumps into `CODE`, which has lost its right to run meanwhile | `DATA` none |
//! | 5 | end | |

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// What code reads while it loses its right to run.
    DATA: 1
);

const FIRST: u64 = 0x1111_1111_1111_1111;
const SECOND: u64 = 0x2222_2222_2222_2222;
const REACHED: u64 = 0x3333_3333_3333_3333;
const CONTENT: u64 = 0x4444_4444_4444_4444;
/// `movabs rax, …` has two bytes before its number.
const NUMBER_AT: u64 = 2;
/// Where the function in `REACHES` begins: four bytes of its instruction are in the first page.
const REACHES_AT: u64 = 0xffc;
/// Where the function that reads `DATA` begins in `REACHES`.
const READS_AT: u64 = 0x100;

global_asm!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global CODE, REACHES
    .type CODE, @object
    CODE:
    movabs rax, {first}
    ret
    .org CODE + 0x140
    1: ret
    .balign 4096
    .size CODE, 4096

    .type REACHES, @object
    REACHES:
    .org REACHES + {reads_at}
    mov rax, [DATA]
    jmp 1b
    .org REACHES + {reaches_at}
    movabs rax, {reached}
    ret
    .balign 4096
    .size REACHES, 8192
    .text
    "#,
    first = const FIRST,
    reached = const REACHED,
    reads_at = const READS_AT,
    reaches_at = const REACHES_AT,
);

unsafe extern "C" {
    static CODE: u8;
    static REACHES: u8;
}

guest::main!(main);

fn main() {
    let code = (&raw const CODE).expose_provenance() as u64;
    let reaches = (&raw const REACHES).expose_provenance() as u64;
    tables::map(tables::FREE, code, Use::ReadWrite);
    access::write(DATA.address(), CONTENT);
    call("before anything", code, FIRST);
    call("in two pages", reaches + REACHES_AT, REACHED);
    call("with a read", reaches + READS_AT, CONTENT);

    checkpoint(1, code, 4096, 0);
    call("as it was", code, FIRST);
    access::write(tables::FREE + NUMBER_AT, SECOND);
    call("rewritten", code, SECOND);

    checkpoint(2, code, 4096, 0);
    call("without the right to run", code, SECOND);
    call("with the right again", code, SECOND);

    checkpoint(3, reaches, 8192, 0);
    call("into a page without the right to run", reaches + REACHES_AT, REACHED);

    checkpoint(4, code, 4096, 0);
    call("that jumps to what lost its right to run", reaches + READS_AT, CONTENT);
    checkpoint(5, 0, 0, 0);
    println!("rewritten code ran, and each page's right was asked for");
    verdict::success();
}

fn call(what: &str, at: u64, due: u64) {
    let returned = access::call(at);
    if returned != due {
        failure!("code {what} returned {returned:#x} instead of {due:#x}");
    }
}
