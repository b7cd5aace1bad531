//! The ways in which a linear address comes to lead to another frame, for guests that touch it before and after.

use crate::page::PAGE_SIZE;
use crate::tables::{self, Use};
use crate::{access, checkpoint, failure};

/// One way: touches the address when it leads elsewhere. It is entered with the address, where its entry lies, what the entry becomes, and the CR3 of
/// an address space that has the other frame there.
pub type Way = extern "C" fn(address: u64, entry: u64, becomes: u64, other: u64) -> u64;

/// Present, writable, accessed, dirty.
const PAGE: u64 = 0x63;
/// An entry's translation outlives a write to CR3.
pub const GLOBAL: u64 = 1 << 8;

/// Defines the ways as `WAYS`, each with the flags of the entry, given the instruction that touches the address in RDI and leaves what it found
/// in RAX.
#[macro_export]
macro_rules! ways_to_another_frame {
    ($touch:literal) => {
        $crate::functions!(
            ".pushsection .text.ways_to_another_frame, \"ax\", @progbits",
            "function by_invlpg",
            "mov [rsi], rdx",
            "invlpg [rdi]",
            $touch,
            "ret",
            "done by_invlpg",
            "function by_cr3",
            "mov [rsi], rdx",
            "mov rax, cr3",
            "mov cr3, rax",
            $touch,
            "ret",
            "done by_cr3",
            "function by_global_pages",
            "mov rax, cr4",
            "xor eax, 0x80",
            "mov cr4, rax",
            "mov r8, [rdi]",
            "mov [rsi], rdx",
            "xor eax, 0x80",
            "mov cr4, rax",
            $touch,
            "ret",
            "done by_global_pages",
            "function by_another_space",
            "mov r8, cr3",
            "mov cr3, rcx",
            $touch,
            "mov cr3, r8",
            "ret",
            "done by_another_space",
            ".popsection",
        );

        unsafe extern "C" {
            safe fn by_invlpg(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
            safe fn by_cr3(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
            safe fn by_global_pages(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
            safe fn by_another_space(address: u64, entry: u64, becomes: u64, other: u64) -> u64;
        }

        const WAYS: [($crate::other_frame::Way, u64); 4] =
            [(by_invlpg, 0), (by_cr3, 0), (by_global_pages, $crate::other_frame::GLOBAL), (by_another_space, 0)];
    };
}

/// Touches the page at the 1 TiB line while it leads to the first frame, and after it was made to lead to the second one, in each way; each frame
/// has beside it what is found there. Checkpoint 1 comes before each case, with its function as the third argument, checkpoint 2 after it.
/// `space`: four pages for the tables of another address space.
pub fn go(
    ways: &[(Way, u64)],
    space: u64,
    touch: impl Fn(u64) -> u64,
    [(open, opened), (watched, closed)]: [(u64, u64); 2],
) {
    make_space(space, open, watched);
    for (way, flags) in ways {
        let address = tables::FREE;
        tables::map(address, open, Use::ReadWrite);
        let entry = tables::place(address, 0);
        access::write(entry, open | PAGE | flags);
        checkpoint(1, address, 0, (*way as *const ()).expose_provenance() as u64);
        expect(touch(address), opened);
        let found = way(address, entry, watched | PAGE | flags, space);
        checkpoint(2, address, found, 0);
        expect(found, closed);
    }
}

/// Ends the guest where something else was found.
pub fn expect(found: u64, due: u64) {
    if found != due {
        failure!("found {found:#x} where {due:#x} is due");
    }
}

/// An address space that is this one but for the 1 TiB line, where it has the second frame.
fn make_space(mut table: u64, open: u64, watched: u64) {
    tables::map(tables::FREE, open, Use::ReadWrite);
    for slot in 0..512 {
        access::write(table + slot * 8, access::read(tables::root() + slot * 8));
    }
    for shift in [39, 30, 21] {
        access::write(table + (tables::FREE >> shift & 511) * 8, (table + PAGE_SIZE) | PAGE);
        table += PAGE_SIZE;
    }
    access::write(table + (tables::FREE >> 12 & 511) * 8, watched | PAGE);
}
