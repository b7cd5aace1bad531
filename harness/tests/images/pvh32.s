# A kernel of 32 bits with a PVH entry note: writes to 5 MiB, then to the exit port.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
    .text
    .code32
    .global _start
_start:
    movl $1, 0x500000
    mov $0x10, %eax
    mov $0xf4, %dx
    out %eax, %dx
1:  hlt
    jmp 1b
    .section .note.GNU-stack, ""
