//! From the first instruction to Rust, on every vCPU.
//!
//! PVH (Xen's `docs/misc/pvh.pandoc`): the loader reads the entry from an ELF note of type 18 owned by "Xen" and enters
//! it in 32-bit protected mode, flat segments, no paging, interrupts off. The description is written with 8 bytes, as
//! Linux does for 64-bit images: QEMU reads 8 whatever the note says. The start info that `ebx` points to is not
//! used: memory is identity mapped anyway, and the number of vCPUs comes from [`crate::fwcfg`].
//!
//! A secondary vCPU starts in 16-bit mode in the copy of `trampoline` below 1 MiB and joins the same way up. There is
//! one set of page tables, built by the boot vCPU before the others are woken. SSE is switched on before the first
//! line of Rust, since `core` was compiled to use it.

use core::arch::global_asm;

use crate::{idt, smp, verdict};

/// Bytes of stack for each vCPU.
const STACK_SIZE: usize = 16 * 1024;

/// Where `trampoline` is copied: RAM on every PC, a page boundary below 1 MiB, so that a SIPI vector can name it.
pub const TRAMPOLINE: u64 = 0x8000;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18                  # sizes of name and description, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .boot, "ax", @progbits
    .code32
    .global pvh_entry
pvh_entry:
    cli
    cld
    # 0x23 present, writable, accessed; 0xe3 the same, dirty, 2 MiB. Memory of .bss is zero: upper halves stay so.
    movl $BOOT_PDPT + 0x23, BOOT_PML4
    mov $BOOT_PD + 0x23, %eax
    mov $BOOT_PDPT, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 1b
    mov $0xe3, %eax
    mov $BOOT_PD, %edi
    mov $2048, %ecx
2:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 2b
    xor %ebp, %ebp                  # not a secondary vCPU

enter_long_mode:
    lgdt gdt_pointer
    mov $0x620, %eax                # CR4: PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $BOOT_PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx           # EFER: long mode, no-execute
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax           # CR0: PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmp $0x08, $long_mode

    .code64
long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $1, %eax                    # the initial APIC id is the number of this vCPU
    cpuid
    shr $24, %ebx
    cmp ${max_vcpus}, %ebx
    jae 3f
    lea 1(%rbx), %rsp
    imul ${stack_size}, %rsp, %rsp
    add $STACKS, %rsp
    mov %ebx, %edi
    mov %ebp, %esi
    xor %ebp, %ebp
    call vcpu_entry
3:  cli
    hlt
    jmp 3b

    # 16-bit; copied to TRAMPOLINE, so every address in it is written relative to that.
    .code16
    .global trampoline, trampoline_end
trampoline:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl {trampoline_at} + (4f - trampoline)
    mov $0x11, %eax                 # CR0: ET, PE
    mov %eax, %cr0
    ljmpl $0x18, $secondary_entry
    .balign 4
4:  .word gdt_end - gdt - 1
    .long gdt
trampoline_end:

    .code32
secondary_entry:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %ebp
    jmp enter_long_mode
    .code64

    # Accessed bits are set: loading a segment writes nothing.
    .section .rodata.gdt, "a", @progbits
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9b000000ffff        # 0x08 code, 64-bit
    .quad 0x00cf93000000ffff        # 0x10 data
    .quad 0x00cf9b000000ffff        # 0x18 code, 32-bit
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global BOOT_PML4
BOOT_PML4: .skip 4096
BOOT_PDPT: .skip 4096
BOOT_PD:   .skip 4 * 4096
STACKS:    .skip {max_vcpus} * {stack_size}
    .previous
    "#,
    max_vcpus = const smp::MAX_VCPUS,
    stack_size = const STACK_SIZE,
    trampoline_at = const TRAMPOLINE,
    options(att_syntax)
);

unsafe extern "C" {
    fn guest_main();
}

/// The first Rust on a vCPU, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn vcpu_entry(vcpu: usize, secondary: u32) -> ! {
    idt::load();
    if secondary != 0 {
        smp::secondary(vcpu);
    }
    smp::count();
    // SAFETY: `guest::main!` defines it in the guest's binary, with this signature; the linker found it.
    unsafe { guest_main() };
    verdict::finish(verdict::Verdict::Error, format_args!("the guest ended without a verdict"))
}
