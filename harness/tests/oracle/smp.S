/* PVH guest of several vCPUs, 32-bit flat. All vCPUs run `loop`, told by a control page at gfn 0x300:
   word 0 mode: 0 idle, 1 touch own frames 0x400+16*v..+15 in turn, 2 all touch the same frames 0x400..0x40f in turn,
                3 write CR3 = v<<24 | seq<<12 (seq 1..0xfff), 4 as 3 but only vCPU 0, 5 touch own frame 0x400+16*v only, 6 all touch frame 0x400 only
   word 1: extra delay loop of all vCPUs after each event; word 2: extra delay of all but vCPU 0; word 3: vCPU mask (0 = all) that acts
   0x300100 + 16*v: events done by vCPU v; +4 value of the last; +8 wrong contents seen; +12 idle loops.
   The recordings' guest is the same but for its beginning, where Xen starts the other vCPUs (VCPUOP_up), and for yielding to Xen when idle. */
 .set trampoline, 0x8000
 .set apic, 0xfee00000
 .section .note.Xen,"a",@note
 .long 4, 4, 18
 .asciz "Xen"
 .long _start
 .text
 .code32
 .global _start
_start:
 cli
 mov $stack_top,%esp
 lgdt gdtr
 ljmp $8,$1f
1: mov $16,%ax
 mov %ax,%ds; mov %ax,%es; mov %ax,%ss
 mov $'S',%al
 out %al,$0xe9
 mov $0x300000,%edi       /* clear control page */
 mov $1024,%ecx
 xor %eax,%eax
 rep stosl
 mov $0x400000,%edi       /* own number into each frame 0x400..0x4ff */
2: mov %edi,%eax
 shr $12,%eax
 mov %eax,(%edi)
 add $0x1000,%edi
 cmp $0x500000,%edi
 jb 2b
 mov $wake,%esi           /* INIT, then SIPI twice, to all others */
 mov $trampoline,%edi
 mov $wake_end-wake,%ecx
 rep movsb
 movl $0x1ff,apic+0xf0
 movl $0xc4500,apic+0x300
 call delay
 movl $0xc4600+(trampoline>>12),apic+0x300
 call delay
 movl $0xc4600+(trampoline>>12),apic+0x300
 xor %eax,%eax
 jmp up
delay: mov $1000000,%ecx
3: dec %ecx
 jnz 3b
 ret
 .code16
wake:
 cli
 lgdtl %cs:gdtr_low-wake
 mov $0x11,%eax
 mov %eax,%cr0
 ljmpl $8,$other
gdtr_low: .word 23
 .long gdt
wake_end:
 .code32
other:
 mov $16,%ax
 mov %ax,%ds; mov %ax,%es; mov %ax,%ss
 mov $1,%eax              /* my number is that of my APIC */
 cpuid
 shr $24,%ebx
 mov %ebx,%eax
 shl $10,%ebx
 lea stacks+1024(%ebx),%esp
up:
 mov %eax,%ebp            /* my number */
 mov $'U',%al
 out %al,$0xe9
 mov %ebp,%esi
 shl $4,%esi
 add $0x300100,%esi       /* my record */
 xor %edi,%edi            /* turn */
loop:
 mov 0x300000,%eax
 test %eax,%eax
 jz idle
 mov 0x30000c,%ecx
 test %ecx,%ecx
 jz 6f
 bt %ebp,%ecx
 jnc idle
6: cmp $1,%eax
 je own
 cmp $2,%eax
 je same
 cmp $3,%eax
 je cr
 cmp $4,%eax
 je cr0only
 cmp $5,%eax
 je own1
 cmp $6,%eax
 je same1
idle:
 incl 12(%esi)
 pause
 jmp loop
own1: mov $0,%edi
own: mov %ebp,%eax
 shl $16,%eax
 jmp 7f
same1: mov $0,%edi
same: xor %eax,%eax
7: mov %edi,%edx
 and $15,%edx
 shl $12,%edx
 lea 0x400000(%eax,%edx),%ebx
 mov (%ebx),%ecx          /* the access */
 shr $12,%ebx
 cmp %ecx,%ebx
 je 8f
 incl 8(%esi)
8: mov %ebx,4(%esi)
 jmp done
cr0only: test %ebp,%ebp
 jnz idle
cr: mov %edi,%eax
 inc %eax
 and $0xfff,%eax
 shl $12,%eax
 mov %ebp,%edx
 shl $24,%edx
 or %edx,%eax
 mov %eax,4(%esi)
 mov %eax,%cr3
done:
 incl (%esi)
 inc %edi
 mov 0x300004,%ecx
 test %ebp,%ebp
 jz 9f
 add 0x300008,%ecx
9: test %ecx,%ecx
 jz loop
10: pause
 dec %ecx
 jnz 10b
 jmp loop
 .data
 .balign 8
gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr: .word 23
 .long gdt
 .bss
 .balign 4096
 .skip 4096
stack_top:
stacks: .skip 1024*33
