//! A watched page read, written and read-modify-written; one page of code run at several addresses.
//!
//! Hardware: an access that EPT forbids does not happen. The processor leaves the guest before the instruction has had
//! any effect; if the hypervisor then changes memory and resumes, the instruction runs as if it came only now. A
//! read-modify-write is one access that asks for read and write at once.
//!
//! Xen: the violation stops the vCPU, `p2m_mem_access_check` puts a request on the ring, and the instruction is tried
//! again after the listener's answer. A listener may therefore look at a page *before* a write, and change what a read
//! will see: unpackers and rootkit hunters live on it.
//!
//! What this proves: before means before. While the vCPU is stopped the consumer writes [`NEW_READ`] at offset 0x10 on
//! the read's event, and [`NEW_ADD`] at offset 0x30 on the read-modify-write's. The guest knows nothing of consumers: it
//! accepts both words as it left them, or both as changed before the access. A change that came too late, or was
//! overwritten with an old value, is neither.
//!
//! The second half is about the address an event reports. [`TWICE`] is one page of code that loads a word relative to
//! itself, from the page after it. It runs at its own address and at two others, where the page after it is another
//! frame each time. A translator that caches code by physical page (QEMU does) runs the same translation thrice; an
//! observer that takes an access's address from the translation, not from the instruction pointer, sees the wrong page.
//!
//! | symbol | what |
//! |---|---|
//! | `WATCHED` | one page of data |
//! | `TWICE`, `TWICE_DATA` | the page of code, and the page after it at its own address |
//! | `DATA_A`, `DATA_B` | the page after it at the two other addresses |
//!
//! | checkpoint | when | arguments |
//! |---|---|---|
//! | 1 | before the accesses | address and bytes of `WATCHED` |
//! | 2 | after them | value read; value before the addition; value after it, as read back |
//! | 3 | end | |
//!
//! Accesses to `WATCHED` between 1 and 2, in order: read at 0x10, write at 0x20, read-modify-write at 0x30, and to see
//! what became of it a read at 0x30. After 2: a read at 0x20, then the code page at its own address, at A, at B, at A.

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::page::PAGE_SIZE;
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// The page whose accesses are events.
    WATCHED: 1
);
guest::pages!(
    /// What follows the code page at address A.
    DATA_A: 1
);
guest::pages!(
    /// What follows the code page at address B.
    DATA_B: 1
);

const READ_AT: u64 = 0x10;
const WRITE_AT: u64 = 0x20;
const ADD_AT: u64 = 0x30;

const OLD_READ: u64 = 0x0102_0304_0506_0708;
/// What a consumer that changes the page before the read puts there.
const NEW_READ: u64 = 0x1122_3344_5566_7788;
const OLD_WRITE: u64 = 0xaaaa_aaaa_aaaa_aaaa;
const WRITTEN: u64 = 0x5555_6666_7777_8888;
const OLD_ADD: u64 = 0x4000;
/// What a consumer that changes the page before the addition puts there.
const NEW_ADD: u64 = 0x1000;

/// Where the word lies in the page after the code.
const WORD_AT: u64 = 0x40;
/// What it holds, at the code's own address, at A and at B. The first is written in the assembly below.
const WORDS: [u64; 3] = [0x7e77_1ce0_0000_0000, 0x7e77_1ce0_0000_000a, 0x7e77_1ce0_0000_000b];

const A: u64 = tables::FREE;
const B: u64 = tables::FREE + 0x4000_0000;

global_asm!(
    ".section .code_pages, \"ax\", @progbits",
    ".balign 4096",
    ".global TWICE, TWICE_DATA",
    ".type TWICE, @function",
    "TWICE:",
    "mov rax, [rip + TWICE_DATA + {word_at}]",
    "ret",
    ".balign 4096",
    ".size TWICE, 4096",
    ".type TWICE_DATA, @object",
    "TWICE_DATA:",
    ".skip {word_at}",
    ".quad {word}",
    ".balign 4096, 0",
    ".size TWICE_DATA, 4096",
    ".text",
    word_at = const WORD_AT,
    word = const WORDS[0],
);

unsafe extern "C" {
    static TWICE: u8;
}

guest::main!(main);

fn main() {
    before_means_before();
    one_code_page_at_three_addresses();
    checkpoint(3, 0, 0, 0);
    verdict::success();
}

fn before_means_before() {
    let page = WATCHED.address();
    access::write(page + READ_AT, OLD_READ);
    access::write(page + WRITE_AT, OLD_WRITE);
    access::write(page + ADD_AT, OLD_ADD);
    checkpoint(1, page, WATCHED.bytes(), 0);

    let read = access::read(page + READ_AT);
    access::write(page + WRITE_AT, WRITTEN);
    let before = access::add(page + ADD_AT, 1);
    let after = access::read(page + ADD_AT);
    checkpoint(2, read, before, after);

    let written = access::read(page + WRITE_AT);
    println!("read {read:#x}, wrote {written:#x}, added to {before:#x}, now {after:#x}");
    match (read, before) {
        (OLD_READ, OLD_ADD) => println!("untouched: nobody changed the page"),
        (NEW_READ, NEW_ADD) => println!("changed by the consumer, before each access"),
        _ => failure!("read {read:#x} and added to {before:#x}: neither untouched nor changed before the access"),
    }
    if after != before + 1 {
        failure!("{before:#x} + 1 became {after:#x}");
    }
    if written != WRITTEN {
        failure!("wrote {WRITTEN:#x}, found {written:#x}");
    }
}

fn one_code_page_at_three_addresses() {
    let home = (&raw const TWICE).addr() as u64;
    for (at, data, word) in [(A, &DATA_A, WORDS[1]), (B, &DATA_B, WORDS[2])] {
        access::write(data.address() + WORD_AT, word);
        tables::map(at, home, Use::Read);
        tables::map(at + PAGE_SIZE, data.address(), Use::Read);
    }
    for (at, word) in [(home, WORDS[0]), (A, WORDS[1]), (B, WORDS[2]), (A, WORDS[1])] {
        let loaded = access::call(at);
        println!("code at {at:#x} loaded {loaded:#x}");
        if loaded != word {
            failure!("code at {at:#x} loaded {loaded:#x} instead of {word:#x}");
        }
    }
}
