# An EFI application, its headers by hand: the firmware finds it on a disk, loads and calls it, in 64-bit mode with memory
# identity mapped. It writes a word to each of eight pages at 32 MiB, which firmware leaves free, reads them back, says whether
# they are right, and powers off by the chipset's own register.

        .intel_syntax noprefix
        .code64
        .globl _start
_start:
image:  .ascii  "MZ"
        .org    0x3c
        .long   coff - image
coff:   .ascii  "PE\0\0"
        .word   0x8664, 1                       # x86-64, one section
        .long   0, 0, 0
        .word   section - optional, 0x22        # executable, of any address
optional:
        .word   0x20b, 0                        # 64 bits
        .long   0x1000, 0, 0                    # size of its code, of data and of zeroes
        .long   entry - image, 0x1000           # its entry, its code
        .quad   0                               # its address: any
        .long   0x1000, 0x200                   # alignment in memory, in the file
        .word   0, 0, 0, 0, 0, 0
        .long   0, 0x2000, 0x1000, 0            # whole size, that of the headers
        .word   10, 0                           # an EFI application
        .quad   0, 0, 0, 0
        .long   0, 6
        .quad   0, 0, 0, 0, 0, 0                # no tables, so no relocations either
section:
        .ascii  ".text\0\0\0"
        .long   0x1000, 0x1000, 0x1000, 0x1000, 0, 0, 0
        .long   0x60000020

        .org    0x1000
entry:  cli
        cld
        mov     ebx, 0x2000000
fill:   mov     [rbx + 0x10], rbx
        add     ebx, 0x1000
        cmp     ebx, 0x2008000
        jb      fill
        lea     rsi, [rip + right]
        mov     ebx, 0x2000000
check:  cmp     [rbx + 0x10], rbx
        jne     lost
        add     ebx, 0x1000
        cmp     ebx, 0x2008000
        jb      check
        jmp     say
lost:   lea     rsi, [rip + wrong]
say:    mov     edx, 0x3f8
next:   lodsb
        test    al, al
        jz      off
        out     dx, al
        jmp     next
off:    mov     edx, 0x604
        mov     eax, 0x2000
        out     dx, ax
stay:   hlt
        jmp     stay

right:  .asciz  "verdict: success: booted by EFI\n"
wrong:  .asciz  "verdict: failure: a page lost what was written\n"

        .org    0x2000
