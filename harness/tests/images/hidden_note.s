# The Xen note behind one that is padded otherwise, in a segment with the alignment of the other.
    .section .note.A, "a", @note
    .balign 8
    .long 4, 16, 5
    .asciz "GNU"
    .long 0xc0000002, 4, 3, 0
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad _start
    .text
    .code32
    .global _start
_start:
    hlt
    .section .note.GNU-stack, ""
