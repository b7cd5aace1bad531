# A disk with a boot sector: the firmware loads it to 0x7c00 and jumps there, in real mode. It writes a word to each of eight pages,
# reads them back, says whether they are right, and powers off by the chipset's own register.

        .intel_syntax noprefix
        .code16
        .globl _start
_start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     bx, 0x3000
fill:   mov     es, bx
        mov     es:[0x10], bx
        add     bx, 0x100
        cmp     bx, 0x3800
        jb      fill
        mov     si, offset right
        mov     bx, 0x3000
check:  mov     es, bx
        cmp     es:[0x10], bx
        jne     lost
        add     bx, 0x100
        cmp     bx, 0x3800
        jb      check
        jmp     say
lost:   mov     si, offset wrong
say:    mov     dx, 0x3f8
next:   lodsb
        test    al, al
        jz      off
        out     dx, al
        jmp     next
        # Q35's PM1a control, where both SeaBIOS and OVMF put it: soft off.
off:    mov     dx, 0x604
        mov     ax, 0x2000
        out     dx, ax
stay:   hlt
        jmp     stay

right:  .asciz  "verdict: success: booted from a disk\n"
wrong:  .asciz  "verdict: failure: a page lost what was written\n"

        .org    510
        .word   0xaa55
        # Firmware takes no disk that is smaller than a track.
        .org    0x100000
