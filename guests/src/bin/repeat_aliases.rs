//! A repeated string instruction over very many linear pages that are all the same frame.
//!
//! Hardware: page tables may lead any number of linear pages to one frame, so one instruction can go over terabytes of addresses of a small
//! machine. It is interruptible all the while.
//!
//! Xen: gets this from the processor.
//!
//! What this proves: what an instruction will touch is not looked at for all of its pages before it begins. That kept QEMU's monitor from being
//! answered for hours.
//!
//! Symbols: `ALIASED`, the frame, filled through other addresses. `COUNT`: in its first 8 bytes how many bytes are filled, up to 64 TiB; three
//! pages' worth if it holds 0. Checkpoint 1: before. Checkpoint 2: end.

#![no_std]
#![no_main]

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, tables, verdict};

guest::pages!(
    /// What all addresses lead to.
    ALIASED: 1
);
guest::pages!(
    /// How many bytes are filled.
    COUNT: 1
);
guest::pages!(
    /// A table of each level below the root, all of whose entries lead to the next, and those of the last to the frame.
    LEVELS: 3
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    function fill
        mov rcx, rsi
        mov eax, edx
        rep stosb
        mov rax, rdi
        ret
    done fill
    "#
);

unsafe extern "C" {
    safe fn fill(address: u64, bytes: u64, value: u64) -> u64;
}

/// Present, writable, accessed, dirty.
const ENTRY: u64 = 0x63;
/// How many entries of the root lead there: 512 GiB each.
const ROOTS: u64 = 128;

guest::main!(main);

fn main() {
    let frames = [LEVELS.address() + PAGE_SIZE, LEVELS.address() + 2 * PAGE_SIZE, ALIASED.address()];
    for (table, next) in (LEVELS.address()..).step_by(4096).zip(frames) {
        for entry in 0..512 {
            access::write(table + entry * 8, next | ENTRY);
        }
    }
    let first = tables::FREE >> 39;
    for entry in first..first + ROOTS {
        access::write(tables::root() + entry * 8, LEVELS.address() | ENTRY);
    }
    checkpoint(1, ALIASED.address(), COUNT.address(), 0);
    let count = match access::read(COUNT.address()) {
        0 => 3 * PAGE_SIZE,
        count => count,
    };
    let end = fill(tables::FREE, count, 0xa1);
    checkpoint(2, end, 0, 0);
    if end != tables::FREE + count {
        failure!("the filling ended at {end:#x}");
    }
    for address in (ALIASED.address()..ALIASED.address() + PAGE_SIZE).step_by(8) {
        let found = access::read(address);
        if found != 0xa1a1_a1a1_a1a1_a1a1 {
            failure!("{found:#x} at {address:#x}");
        }
    }
    println!("filled {count:#x} bytes of one frame");
    verdict::success();
}
