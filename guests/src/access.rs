//! One access, one fixed instruction: what an event will show is written here and not left to the compiler.
//!
//! They are functions of assembly with names that do not depend on the compiler either, so that the instruction pointer
//! in an event reads `access_read+0x0` in every build of the guest.
//!
//! The functions take an address, as hardware does. They are safe in the way of this whole package: an address that is
//! not mapped is a guest page fault, which [`crate::idt`] reports; callers pass addresses of [`crate::page::Pages`], into
//! which no reference exists, or of pages they mapped. A guest that writes over its own code is a broken test.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .text.access, "ax", @progbits
    .macro access name:req
    .balign 16
    .global \name
    .type \name, @function
    \name:
    .endm

    access access_read
        mov rax, [rdi]
        ret
        .size access_read, . - access_read
    access access_write
        mov [rdi], rsi
        ret
        .size access_write, . - access_write
    access access_add
        lock xadd [rdi], rsi
        mov rax, rsi
        ret
        .size access_add, . - access_add
    access access_call
        jmp rdi
        .size access_call, . - access_call
    .popsection
    "#
);

unsafe extern "C" {
    /// Reads 8 bytes: `mov rax, [rdi]`.
    #[link_name = "access_read"]
    pub safe fn read(address: u64) -> u64;

    /// Writes 8 bytes: `mov [rdi], rsi`.
    #[link_name = "access_write"]
    pub safe fn write(address: u64, value: u64);

    /// Adds to 8 bytes in one read-modify-write and returns what was there: `lock xadd [rdi], rsi`.
    #[link_name = "access_add"]
    pub safe fn add(address: u64, value: u64) -> u64;

    /// Runs the code at `address`, which takes nothing and returns in rax to the caller of this: `jmp rdi`.
    #[link_name = "access_call"]
    pub safe fn call(address: u64) -> u64;
}
