//! One linear address that comes to mean another frame.
//!
//! Hardware: the processor keeps translations until it is told to forget them: one page by INVLPG, all but the
//! global ones by a write to CR3, these too by a change of CR4.PGE. (INVPCID and PCIDs are not among what QEMU's TCG has.)
//!
//! Xen: leaves all that to the processor; the rights of a violation are those of the frame that the access really reaches.
//!
//! What this proves: a cache of linear pages that may be touched must be emptied at each of these. At the start of a case the page at
//! the 1 TiB line means `OPEN`, and is read, so that it is known; then it is made to mean `WATCHED` in the case's way, and read again.
//!
//! Symbols: `OPEN`, `WATCHED`. Checkpoint 1 comes before each case (the third argument is its function), checkpoint 2 after it.

#![no_std]
#![no_main]

use guest::page::PAGE_SIZE;
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// May be read.
    OPEN: 1
);
guest::pages!(
    /// Another address space's tables, from the first level to the last.
    OTHER: 4
);
guest::pages!(
    /// Is watched.
    WATCHED: 1
);

guest::functions!(
    r#"
    .pushsection .text.translations, "ax", @progbits
    # Each is entered with rdi = the address, rsi = its entry, rdx = what the entry becomes, rcx = the other address space's CR3.
    function by_invlpg
        mov [rsi], rdx
        invlpg [rdi]
        mov rax, [rdi]
        ret
    done by_invlpg
    function by_cr3
        mov [rsi], rdx
        mov rax, cr3
        mov cr3, rax
        mov rax, [rdi]
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
        mov rax, [rdi]
        ret
    done by_global_pages
    function by_another_space
        mov r8, cr3
        mov cr3, rcx
        mov rax, [rdi]
        mov cr3, r8
        ret
    done by_another_space
    .popsection
    "#
);

type Case = extern "C" fn(address: u64, entry: u64, becomes: u64, other: u64) -> u64;

unsafe extern "C" {
    safe fn by_invlpg(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
    safe fn by_cr3(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
    safe fn by_global_pages(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
    safe fn by_another_space(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
}

/// Present, writable, accessed, dirty.
const PAGE: u64 = 0x63;
const GLOBAL: u64 = 1 << 8;
const CLOSED: u64 = 0x77;

guest::main!(main);

fn main() {
    access::write(WATCHED.address(), CLOSED);
    let other = make_other_space();
    let cases: [(Case, u64); 4] = [(by_invlpg, 0), (by_cr3, 0), (by_global_pages, GLOBAL), (by_another_space, 0)];
    for (case, flags) in cases {
        run(case, flags, other);
    }
    println!("{} cases", cases.len());
    verdict::success();
}

fn run(case: Case, flags: u64, other: u64) {
    let address = tables::FREE;
    tables::map(address, OPEN.address(), Use::ReadWrite);
    let entry = tables::place(address, 0);
    access::write(entry, OPEN.address() | PAGE | flags);
    checkpoint(1, address, 0, (case as *const ()).expose_provenance() as u64);
    access::read(address);
    let found = case(address, entry, WATCHED.address() | PAGE | flags, other);
    checkpoint(2, address, found, 0);
    if found != CLOSED {
        failure!("read {found:#x} where {CLOSED:#x} is due");
    }
}

/// An address space that is this one but for the 1 TiB line, where it has `WATCHED`.
fn make_other_space() -> u64 {
    tables::map(tables::FREE, OPEN.address(), Use::ReadWrite);
    let (space, mut table) = (tables::root(), OTHER.address());
    for slot in 0..512 {
        access::write(table + slot * 8, access::read(space + slot * 8));
    }
    for shift in [39, 30, 21] {
        access::write(table + (tables::FREE >> shift & 511) * 8, (table + PAGE_SIZE) | PAGE);
        table += PAGE_SIZE;
    }
    access::write(table + (tables::FREE >> 12 & 511) * 8, WATCHED.address() | PAGE);
    OTHER.address()
}
