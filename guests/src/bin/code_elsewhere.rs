//! One linear address at which other code comes to lie.
//!
//! Hardware: a fetch needs the execute right in EPT for the frame that the address means when it is made; the processor keeps translations
//! until it is told to forget them, as for data.
//!
//! Xen: leaves all that to the processor; a fetch without the right is a violation with x, of the frame that it really reaches.
//!
//! What this proves: a check that knows of linear addresses only lets code run that it took for other code. At the start of a case the page at
//! the 1 TiB line means `OPEN`, and is called, so that it is known; then it is made to mean `WATCHED` in the case's way, and called again.
//! `WATCHED` has been called where it lies, so that a translator has its code as well.
//!
//! Symbols: `OPEN`, `WATCHED`, each with a function that returns a number. Checkpoint 1 comes before each case (the third argument is its
//! function), checkpoint 2 after it.

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::page::PAGE_SIZE;
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// Another address space's tables, from the first level to the last.
    OTHER: 4
);

const OPENED: u64 = 0x11;
const CLOSED: u64 = 0x77;

global_asm!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global OPEN, WATCHED
    .type OPEN, @object
    OPEN:
    mov eax, {opened}
    ret
    .balign 4096
    .size OPEN, 4096
    .type WATCHED, @object
    WATCHED:
    mov eax, {closed}
    ret
    .balign 4096
    .size WATCHED, 4096
    .text
    "#,
    opened = const OPENED,
    closed = const CLOSED,
);

guest::functions!(
    r#"
    .pushsection .text.code_elsewhere, "ax", @progbits
    # Each is entered with rdi = the address, rsi = its entry, rdx = what the entry becomes, rcx = the other address space's CR3.
    function by_invlpg
        mov [rsi], rdx
        invlpg [rdi]
        call rdi
        ret
    done by_invlpg
    function by_cr3
        mov [rsi], rdx
        mov rax, cr3
        mov cr3, rax
        call rdi
        ret
    done by_cr3
    function by_global_pages
        mov rax, cr4
        xor eax, 0x80
        mov cr4, rax
        mov r8, [rdi]
        mov [rsi], rdx
        xor eax, 0x80
        mov cr4, rax
        call rdi
        ret
    done by_global_pages
    function by_another_space
        mov r8, cr3
        mov cr3, rcx
        call rdi
        mov cr3, r8
        ret
    done by_another_space
    .popsection
    "#
);

type Case = extern "C" fn(address: u64, entry: u64, becomes: u64, other: u64) -> u64;

unsafe extern "C" {
    static OPEN: u8;
    static WATCHED: u8;
    safe fn by_invlpg(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
    safe fn by_cr3(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
    safe fn by_global_pages(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
    safe fn by_another_space(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
}

/// Present, writable, accessed, dirty.
const PAGE: u64 = 0x63;
const GLOBAL: u64 = 1 << 8;

guest::main!(main);

fn main() {
    let [open, watched] = [&raw const OPEN, &raw const WATCHED].map(|page| page.expose_provenance() as u64);
    expect(access::call(watched), CLOSED);
    let other = make_other_space(open, watched);
    let cases: [(Case, u64); 4] = [(by_invlpg, 0), (by_cr3, 0), (by_global_pages, GLOBAL), (by_another_space, 0)];
    for (case, flags) in cases {
        run(case, flags, (open, watched), other);
    }
    println!("{} cases", cases.len());
    verdict::success();
}

fn run(case: Case, flags: u64, (open, watched): (u64, u64), other: u64) {
    let address = tables::FREE;
    tables::map(address, open, Use::ReadWrite);
    let entry = tables::place(address, 0);
    access::write(entry, open | PAGE | flags);
    checkpoint(1, address, 0, (case as *const ()).expose_provenance() as u64);
    expect(access::call(address), OPENED);
    let found = case(address, entry, watched | PAGE | flags, other);
    checkpoint(2, address, found, 0);
    expect(found, CLOSED);
}

fn expect(found: u64, due: u64) {
    if found != due {
        failure!("ran the code that gives {found:#x} where {due:#x} is due");
    }
}

/// An address space that is this one but for the 1 TiB line, where it has `WATCHED`.
fn make_other_space(open: u64, watched: u64) -> u64 {
    tables::map(tables::FREE, open, Use::ReadWrite);
    let (space, mut table) = (tables::root(), OTHER.address());
    for slot in 0..512 {
        access::write(table + slot * 8, access::read(space + slot * 8));
    }
    for shift in [39, 30, 21] {
        access::write(table + (tables::FREE >> shift & 511) * 8, (table + PAGE_SIZE) | PAGE);
        table += PAGE_SIZE;
    }
    access::write(table + (tables::FREE >> 12 & 511) * 8, watched | PAGE);
    OTHER.address()
}
