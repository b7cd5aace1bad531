# A kernel of 32 bits by the multiboot protocol: writes to 5 MiB, then to the exit port.
    .section .text
    .code32
    .balign 4
    .long 0x1badb002, 0, -0x1badb002
    .global _start
_start:
    movl $1, 0x500000
    mov $0x10, %eax
    mov $0xf4, %dx
    out %eax, %dx
1:  hlt
    jmp 1b
    .section .note.GNU-stack, ""
