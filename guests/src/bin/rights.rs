//! Read, write and fetch, under each combination of rights.
//!
//! Hardware: EPT has a bit each for read, write and execute. Writable without readable is no valid combination on a
//! processor; Xen's `XENMEM_access_w` exists all the same, and a listener may ask for it.
//!
//! Xen: `p2m_mem_access_check` raises an event for exactly the rights that the access needed and the page lacked.
//!
//! What this proves: which of the three accesses stops under which rights, by a table of eight rows that fits the eye.
//!
//! Symbol `WATCHED`: one page that holds a function at its start and data behind it. Checkpoints 1 to 8 (arguments: address and
//! bytes of the page, rights meant) are each followed by a read at 0x800, a write at 0x808 and a call of the function,
//! which reads and writes no memory of the page. Rights meant: the checkpoint's number less one, of 1 read, 2 write,
//! 4 execute. Checkpoint 9: end.

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::{access, checkpoint, failure, println, verdict};

const READ_AT: u64 = 0x800;
const WRITE_AT: u64 = 0x808;
const CONTENT: u64 = 0x7269_6768_7473_2121;
const RESULT: u64 = 0x6665_7463_6865_6421;

global_asm!(
    ".section .code_pages, \"ax\", @progbits",
    ".balign 4096",
    ".global WATCHED",
    ".type WATCHED, @object",
    "WATCHED:",
    "movabs rax, {result}",
    "ret",
    ".balign 4096",
    ".size WATCHED, 4096",
    ".text",
    result = const RESULT,
);

unsafe extern "C" {
    static WATCHED: u8;
}

guest::main!(main);

fn main() {
    let page = (&raw const WATCHED).addr() as u64;
    access::write(page + READ_AT, CONTENT);
    for rights in 0..8 {
        checkpoint(rights + 1, page, 4096, rights);
        let read = access::read(page + READ_AT);
        access::write(page + WRITE_AT, rights);
        let called = access::call(page);
        if (read, called) != (CONTENT, RESULT) {
            failure!("rights {rights:#b}: read {read:#x}, called {called:#x}");
        }
    }
    checkpoint(9, 0, 0, 0);
    if access::read(page + WRITE_AT) != 7 {
        failure!("the last write was lost");
    }
    println!("8 times a read, a write and a fetch");
    verdict::success();
}
