//! Flags before a repeated string instruction are the flags after it.
//!
//! Hardware: `rep movs` changes no flag, however often it is interrupted or leaves for the hypervisor.
//!
//! Xen: gets this from the processor.
//!
//! What this proves: a vCPU that waits before such an instruction in the middle of a block goes on with its flags. QEMU computes flags late, from
//! the operands of whatever set them last; who leaves the block here must not have it take those of one instruction for another's. Then
//! bits of a shift's operand became VM and IOPL, and the next `pushfq` faulted.
//!
//! Symbol `WATCHED`: what is copied to. Checkpoint 1: before. Checkpoint 2: end (argument: the flags after it).

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// What is copied to.
    WATCHED: 1
);
guest::pages!(
    /// What is copied.
    SOURCE: 1
);

/// All but what a shift changes: carry, parity, auxiliary, zero, sign, overflow.
const OTHERS: u64 = !0x8d5;
/// The bit that is always set.
const ALWAYS: u64 = 2;

global_asm!(
    r#"
    .global COPY
    COPY:
    mov edi, offset WATCHED
    mov esi, offset SOURCE
    mov ecx, 8
    push 0
    popfq
    mov eax, 0xd83000
    shr eax, 3
    rep movsq
    pushfq
    pop rax
    ret
    "#
);

unsafe extern "C" {
    static COPY: u8;
}

guest::main!(main);

fn main() {
    access::write(SOURCE.address(), 0x6364);
    access::write(WATCHED.address(), 0);
    checkpoint(1, WATCHED.address(), WATCHED.bytes(), 0);
    let flags = access::call((&raw const COPY).expose_provenance() as u64);
    if flags & OTHERS != ALWAYS {
        failure!("the flags are {flags:#x} after a copy that changes none");
    }
    if access::read(WATCHED.address()) != 0x6364 {
        failure!("the copy holds {:#x}", access::read(WATCHED.address()));
    }
    checkpoint(2, flags, 0, 0);
    println!("the flags went through the copy");
    verdict::success();
}
