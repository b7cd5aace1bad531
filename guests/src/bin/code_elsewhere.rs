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

use guest::{access, other_frame, println, verdict};

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

guest::ways_to_another_frame!("call rdi");

unsafe extern "C" {
    static OPEN: u8;
    static WATCHED: u8;
}

guest::main!(main);

fn main() {
    let [open, watched] = [&raw const OPEN, &raw const WATCHED].map(|page| page.expose_provenance() as u64);
    other_frame::expect(access::call(watched), CLOSED);
    other_frame::go(&WAYS, OTHER.address(), |page| access::call(page), [(open, OPENED), (watched, CLOSED)]);
    println!("{} cases", WAYS.len());
    verdict::success();
}
