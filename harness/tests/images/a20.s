# A boot sector. With A20 off it writes to 1 MiB and 0x500, which is 0x500 then; with A20 on to the same place again.
    .code16
    .globl _start
_start:
    ljmp $0, $1f
1:  cli
    xor %ax, %ax
    mov %ax, %ss
    mov $0x7000, %sp
    mov $0xffff, %ax
    mov %ax, %es
    in $0x92, %al
    and $0xfd, %al
    out %al, $0x92
    movb $0x42, %es:0x510
    in $0x92, %al
    or $2, %al
    out %al, $0x92
    movb $0x43, %es:0x510
    mov $0x604, %dx
    mov $0x2000, %ax
    out %ax, %dx
2:  hlt
    jmp 2b
    .org 510
    .word 0xaa55
    .section .note.GNU-stack, ""
