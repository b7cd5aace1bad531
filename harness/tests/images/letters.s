# A kernel of 32 bits with a PVH entry note: writes one letter again and again to the serial port. The letter is in the code.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long _start
    .text
    .code32
    .global _start, LETTER
_start:
    mov $0x3f8, %dx
1:  movb $'A', %al
    .set LETTER, . - 1
    out %al, %dx
    mov $1000000, %ecx
2:  dec %ecx
    jnz 2b
    jmp 1b
    .section .note.GNU-stack, ""
