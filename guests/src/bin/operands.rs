//! Every kind of memory operand.
//!
//! Hardware: an x86 instruction names memory in many ways (base, index, displacement, segment base, instruction pointer,
//! the stack pointer without naming it, string registers, a bit number), with address sizes of 64 and 32 bits, and touches
//! from 1 byte to a save area of hundreds. With EPT the processor tells where the access was and what it wanted.
//!
//! Xen: reports what the processor tells, a page at a time: an instruction with two operands on two forbidden pages exits
//! twice. The order of exits is the order in which the processor needs the pages; reads come first where there are both.
//!
//! What this proves: for each kind, the addresses, the rights and their order are as the manuals say, and the instruction
//! does its work afterwards. A hypervisor in software computes all of this from registers, before the access.
//!
//! Symbols `SOURCE` and `WATCHED`: two pages each, one after the other. Each case is a function `op_…` of assembly, entered with rdi =
//! `WATCHED` and rsi = `SOURCE`, and touches no other memory but its own return address. Checkpoint 1 comes before each
//! (arguments: the two addresses and the function's), checkpoint 2 at the end; then the guest looks whether everything was written.
//!
//! At the start each word of 8 bytes holds its own address. Cases write at places of their own.

#![no_std]
#![no_main]

use core::arch::global_asm;

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, cpu, failure, println, verdict};

guest::pages!(
    /// What is read and, by string instructions, read from.
    SOURCE: 2
);
guest::pages!(
    /// What is read and written.
    WATCHED: 2
);

/// What a case returns, or a word holds at the end.
#[derive(Clone, Copy)]
enum Is {
    /// The address of this place in `WATCHED`, as at the start.
    Watched(u64),
    /// The address of this place in `SOURCE`.
    Source(u64),
    /// This.
    Value(u64),
    /// Not looked at.
    Anything,
}

use Is::{Anything, Source, Value, Watched};

global_asm!(
    r#"
    .pushsection .text.operands, "ax", @progbits
    .macro case name:req
    .balign 16
    .global op_\name
    .type op_\name, @function
    op_\name:
    .endm
    .macro done name:req
    ret
    .size op_\name, . - op_\name
    .endm
    # Around a case whose stack pointer is in WATCHED.
    .macro on_stack offset:req
    mov r11, rsp
    lea rsp, [rdi + \offset]
    .endm
    .macro off_stack
    mov rsp, r11
    .endm
    # Where a case goes on by an address that the guest stored in memory.
    .macro target name:req
    .global target_\name
    target_\name:
    .endm

    # Addresses.
    case base
        mov rax, [rdi + 0x10]
    done base
    case base_index
        mov ecx, 3
        mov rax, [rdi + rcx*8 + 8]
    done base_index
    case index_only
        mov ecx, 5
        mov rax, [rcx*8 + WATCHED]
    done index_only
    case absolute
        mov rax, [WATCHED + 0x30]
    done absolute
    case moffs
        movabs rax, [WATCHED + 0x38]
    done moffs
    case rip_relative
        mov rax, [rip + WATCHED + 0x40]
    done rip_relative
    case rip_relative_and_immediate
        cmp dword ptr [rip + WATCHED + 0x48], 0x12345678
        setne al
        movzx eax, al
    done rip_relative_and_immediate
    case address_of_32_bits
        movabs rcx, 0x1234567800000000
        or rcx, rdi
        mov rax, [ecx + 0x50]
    done address_of_32_bits
    case address_of_32_bits_wraps
        mov ecx, 0xfffff000
        lea rdx, [rdi + 0x1058]
        mov rax, [edx + ecx]
    done address_of_32_bits_wraps
    case negative_displacement
        lea rcx, [rdi + 0x1000]
        mov rax, [rcx - 0xfa0]
    done negative_displacement
    case fs_base
        lea rax, [rdi + 0x60]
        xor edx, edx
        mov ecx, 0xc0000100
        wrmsr
        mov rax, fs:[8]
    done fs_base
    case gs_base
        mov rax, rdi
        xor edx, edx
        mov ecx, 0xc0000101
        wrmsr
        mov ecx, 2
        mov edx, 0x60
        mov rax, gs:[rdx + rcx*8]
    done gs_base
    case xlat
        mov r10, rbx
        lea rbx, [rdi + 0x80]
        mov eax, 8
        xlatb
        movzx eax, al
        mov rbx, r10
    done xlat

    # Sizes and rights.
    case byte
        movzx eax, byte ptr [rdi + 0x90]
    done byte
    case store
        mov [rdi + 0x98], rsi
    done store
    case store_immediate
        mov qword ptr [rdi + 0xa0], 0x1234
    done store_immediate
    case compare
        cmp [rdi + 0xa8], rdi
        seta al
        movzx eax, al
    done compare
    case conditional_move_not_done
        xor eax, eax
        cmovnz rax, [rdi + 0xb0]
    done conditional_move_not_done
    case set_byte
        cmp rdi, rdi
        sete [rdi + 0xb8]
    done set_byte
    case increment
        inc qword ptr [rdi + 0xc0]
    done increment
    case add_to_memory
        lock add qword ptr [rdi + 0xc8], 0x10
    done add_to_memory
    case exchange
        mov eax, 0x77
        xchg [rdi + 0xd0], rax
    done exchange
    case exchange_and_add
        mov eax, 1
        lock xadd [rdi + 0xd8], rax
    done exchange_and_add
    case compare_exchange
        lea rax, [rdi + 0xe0]
        mov ecx, 0x88
        lock cmpxchg [rdi + 0xe0], rcx
    done compare_exchange
    case compare_exchange_differs
        mov eax, 1
        mov ecx, 0x99
        lock cmpxchg [rdi + 0xe8], rcx
    done compare_exchange_differs
    case compare_exchange_16
        mov r10, rbx
        lea rax, [rdi + 0xf0]
        lea rdx, [rdi + 0xf8]
        mov ebx, 0xaa
        mov ecx, 0xbb
        lock cmpxchg16b [rdi + 0xf0]
        mov rbx, r10
    done compare_exchange_16
    case shift
        shl dword ptr [rdi + 0x100], 4
    done shift
    case bit_test
        mov eax, 0x8000 + 4
        bts [rdi + 0x108], rax
    done bit_test
    case bit_test_below
        mov rax, -60
        lea rcx, [rdi + 0x118]
        bt [rcx], rax
        setc al
        movzx eax, al
    done bit_test_below
    case bit_test_immediate
        btc dword ptr [rdi + 0x118], 65
    done bit_test_immediate
    case no_access
        lea rax, [rdi + 0x120]
        nop dword ptr [rdi + 0x120]
        prefetcht0 [rdi + 0x120]
        invlpg [rdi + 0x120]
    done no_access

    # Across the border of the pages.
    case load_across
        mov rax, [rdi + 0xffc]
    done load_across
    case wide_load_across
        movdqu xmm0, [rdi + 0xff4]
        movq rax, xmm0
    done wide_load_across
    case add_across
        add dword ptr [rdi + 0xffe], 0
    done add_across

    # The stack.
    case push
        on_stack 0x208
        push rsi
        off_stack
    done push
    case pop
        on_stack 0x208
        pop rax
        off_stack
    done pop
    case push_memory
        on_stack 0x218
        push [rsi + 0x10]
        off_stack
    done push_memory
    case push_memory_by_rsp
        on_stack 0x228
        push [rsp + 0x18]
        off_stack
    done push_memory_by_rsp
    case pop_memory
        on_stack 0x230
        pop [rsi + 0x18]
        off_stack
    done pop_memory
    case pop_memory_by_rsp
        on_stack 0x230
        pop [rsp + 0x10]
        off_stack
    done pop_memory_by_rsp
    case push_word
        on_stack 0x258
        .byte 0x66, 0x68, 0x34, 0x12    # push 0x1234, two bytes
        off_stack
    done push_word
    case call
        on_stack 0x268
        call 2f
    2:  off_stack
    done call
    case ret
        on_stack 0x270
        ret
        target ret
        off_stack
    done ret
    case call_memory
        on_stack 0x280
        call [rsi + 0x28]
        target call
        off_stack
    done call_memory
    case ret_and_drop
        on_stack 0x288
        ret 16
        target ret_and_drop
        mov rax, rsp
        off_stack
        sub rax, rdi
    done ret_and_drop
    case jump_memory
        jmp [rsi + 0x30]
        target jump
    done jump_memory
    case enter
        mov r10, rbp
        mov rbp, rsi
        on_stack 0x2a0
        enter 16, 0
        mov rax, rsp
        off_stack
        sub rax, rdi
        mov rbp, r10
    done enter
    case enter_nested
        mov r10, rbp
        lea rbp, [rsi + 0x48]
        on_stack 0x2c0
        enter 0, 2
        off_stack
        mov rbp, r10
    done enter_nested
    case leave
        mov r10, rbp
        lea rbp, [rdi + 0x2c8]
        mov r11, rsp
        leave
        mov rax, rbp
        off_stack
        mov rbp, r10
    done leave
    case push_flags
        on_stack 0x2d8
        pushfq
        off_stack
    done push_flags
    case pop_flags
        on_stack 0x2d0
        popfq
        off_stack
    done pop_flags
    case far_return
        on_stack 0x2e0
        retfq
        target far_return
        off_stack
    done far_return
    case interrupt_return
        on_stack 0x300
        iretq
        target interrupt_return
        mov rax, rsp
        off_stack
    done interrupt_return

    # Strings.
    case movs
        lea rdi, [rdi + 0x330]
        lea rsi, [rsi + 0x100]
        movsq
    done movs
    case stos
        lea rdi, [rdi + 0x338]
        mov eax, 0x5a
        stosb
    done stos
    case lods
        lea rsi, [rsi + 0x108]
        lodsq
    done lods
    case outs
        lea rsi, [rsi + 0x110]
        mov edx, 0x80
        outsb
    done outs
    case ins
        lea rdi, [rdi + 0x340]
        mov edx, 0x80
        insb
    done ins
    case rep_movs_up
        lea rdi, [rdi + 0xfe8]
        lea rsi, [rsi + 0xff0]
        mov ecx, 6
        rep movsq
        mov rax, rcx
    done rep_movs_up
    case rep_movs_down
        lea rdi, [rdi + 0x1018]
        lea rsi, [rsi + 0x1010]
        mov ecx, 8
        std
        rep movsq
        cld
        mov rax, rcx
    done rep_movs_down
    case rep_stos_up
        lea rdi, [rdi + 0xff4]
        mov ecx, 3
        xor eax, eax
        rep stosq
        mov rax, rcx
    done rep_stos_up
    case rep_stos_down
        lea rdi, [rdi + 0x1003]
        mov ecx, 8
        mov eax, 0xee
        std
        rep stosb
        cld
        mov rax, rcx
    done rep_stos_down
    case rep_of_nothing
        xor ecx, ecx
        rep movsb
    done rep_of_nothing
    case rep_lods
        add rsi, 0xff0
        mov ecx, 4
        rep lodsq
    done rep_lods
    case rep_movs_address_of_32_bits
        lea rdi, [rdi + 0x350]
        lea rsi, [rsi + 0x118]
        movabs rcx, 0x1200000002
        rep movsq [edi], [esi]
        mov eax, ecx
    done rep_movs_address_of_32_bits
    case cmps
        add rsi, 0x120
        add rdi, 0x360
        cmpsb
        setne al
        movzx eax, al
    done cmps
    case scas_until_found
        mov eax, 0x50
        add rdi, 0x1100
        mov ecx, 100
        repne scasb
        mov eax, ecx
    done scas_until_found
    case scas_into_next_page
        mov eax, 0x1234567
        add rdi, 0xfe0
        mov ecx, 16
        repne scasd
        mov eax, ecx
    done scas_into_next_page

    # The FPU, wide and odd.
    case store_80_bits
        fninit
        fld1
        fstp tbyte ptr [rdi + 0x400]
    done store_80_bits
    case load_integer
        fild qword ptr [rdi + 0x410]
        fstp st(0)
    done load_integer
    case fpu_environment
        fnstenv [rdi + 0x420]
    done fpu_environment
    case control_word
        fnstcw [rdi + 0x440]
    done control_word
    case store_mxcsr
        stmxcsr [rdi + 0x448]
    done store_mxcsr
    case load_mxcsr
        ldmxcsr [rdi + 0x448]
    done load_mxcsr
    case movaps
        movaps xmm0, [rdi + 0x450]
        movaps [rdi + 0x460], xmm0
    done movaps
    case masked_move
        pcmpeqd xmm0, xmm0
        pcmpeqd xmm1, xmm1
        psrldq xmm1, 8
        add rdi, 0x470
        maskmovdqu xmm0, xmm1
    done masked_move
    case fxsave
        fxsave64 [rdi + 0x1200]
    done fxsave
    case fxrstor
        fxrstor64 [rdi + 0x1200]
    done fxrstor
    case fxsave_across
        fxsave64 [rsi + 0xf00]
    done fxsave_across
    case store_tables
        sgdt [rdi + 0x480]
        sidt [rdi + 0x490]
    done store_tables
    case load_tables
        lgdt [rdi + 0x480]
        lidt [rdi + 0x490]
    done load_tables
    case store_task
        str word ptr [rdi + 0x4a0]
        sldt word ptr [rdi + 0x4a2]
        smsw word ptr [rdi + 0x4a4]
    done store_task
    case flush_line
        clflush [rdi + 0x4b0]
    done flush_line
    # XSAVE leaves bits in the header of its area as they are, and XRSTOR wants those to be zero.
    case clear_headers
        xor eax, eax
        add rdi, 0x1600
        mov ecx, 8
        rep stosq
        lea rdi, [rsi + 0xf80]
        mov ecx, 8
        rep stosq
    done clear_headers
    case xsave
        mov eax, 3
        xor edx, edx
        xsave [rdi + 0x1400]
    done xsave
    case xrstor
        mov eax, 3
        xor edx, edx
        xrstor [rdi + 0x1400]
    done xrstor
    case vmaskmov
        pcmpeqd xmm1, xmm1
        psrldq xmm1, 8
        vmaskmovps [rdi + 0x4c0], xmm1, xmm1
    done vmaskmov
    case vmovups_32
        vmovups ymm0, [rdi + 0x4e0]
        vmovups [rdi + 0x500], ymm0
        vzeroupper
    done vmovups_32
    case gather
        pcmpeqd xmm1, xmm1
        pcmpeqd xmm2, xmm2
        pxor xmm0, xmm0
        vpgatherdd xmm0, [rdi + xmm2*4 + 0x544], xmm1
        movd eax, xmm0
    done gather
    # Its indices lead to both pages of WATCHED and down to SOURCE; the one without its mask's bit leads nowhere.
    case gather_by_mask
        mov eax, 0x550
        movd xmm2, eax
        mov eax, 0x1550
        pinsrd xmm2, eax, 1
        mov eax, 0x40000000
        pinsrd xmm2, eax, 2
        lea rax, [rsi + 0x130]
        sub rax, rdi
        pinsrd xmm2, eax, 3
        pcmpeqd xmm1, xmm1
        xor eax, eax
        pinsrd xmm1, eax, 2
        pxor xmm0, xmm0
        vpgatherdd xmm0, [rdi + xmm2], xmm1
        pextrd eax, xmm0, 3
    done gather_by_mask
    # Only what the mask says is touched: nothing on the next page.
    case masked_move_before_border
        pcmpeqd xmm0, xmm0
        pcmpeqd xmm1, xmm1
        psrldq xmm1, 12
        lea rdi, [rsi + 0xffc]
        maskmovdqu xmm0, xmm1
    done masked_move_before_border
    case vmaskmov_behind_border
        pcmpeqd xmm1, xmm1
        pslldq xmm1, 8
        vmaskmovps [rsi + 0xff8], xmm1, xmm1
    done vmaskmov_behind_border
    # QEMU reads the whole, hardware only the first page.
    case vmaskmov_load
        pcmpeqd xmm1, xmm1
        psrldq xmm1, 8
        vpmaskmovd xmm0, xmm1, [rsi + 0xff8]
        movd eax, xmm0
    done vmaskmov_load

    # The area of these begins at +0xd80: legacy region and header lie on the first page, the AVX state from +0xfc0 on reaches into the
    # second one.
    case xsave_across
        mov eax, 7
        xor edx, edx
        xsave [rsi + 0xd80]
    done xsave_across
    case xsave_without_avx
        mov eax, 3
        xor edx, edx
        xsave [rsi + 0xd80]
    done xsave_without_avx
    # SSE is not asked for, and neither is its MXCSR.
    case xsaveopt_avx_alone
        mov eax, 4
        xor edx, edx
        xsaveopt [rsi + 0xd80]
    done xsaveopt_avx_alone
    case xrstor_across
        mov eax, 7
        xor edx, edx
        xrstor [rsi + 0xd80]
    done xrstor_across
    # The header says that there is no AVX state: it is cleared, and none is read.
    case xrstor_of_what_is_there
        btr qword ptr [rsi + 0xf80], 2
        mov eax, 7
        xor edx, edx
        xrstor [rsi + 0xd80]
    done xrstor_of_what_is_there
    # While bounds are off it is none, and touches nothing.
    case bounds_off
        .byte 0x66, 0x0f, 0x1b, 0x86, 0xf8, 0x0f, 0, 0    # bndmov [rsi + 0xff8], bnd0
    done bounds_off
    case bounds
        mov eax, 0x1f
        xor edx, edx
        xor ecx, ecx
        xsetbv
        mov ecx, 0xd90
        xor edx, edx
        mov eax, 1
        wrmsr
        .byte 0x66, 0x0f, 0x1b, 0x86, 0xf8, 0x0f, 0, 0    # bndmov [rsi + 0xff8], bnd0
        .byte 0x66, 0x0f, 0x1a, 0x4f, 0x40                # bndmov bnd1, [rdi + 0x40]
        xor eax, eax
        wrmsr
    done bounds

    # Not a case: lets the XSAVE and AVX cases run.
    .global enable_xsave
    enable_xsave:
        mov rax, cr4
        or eax, 0x40000
        mov cr4, rax
        mov eax, 7
        xor edx, edx
        xor ecx, ecx
        xsetbv
        ret
    .popsection
    "#
);

/// One case.
struct Case {
    run: extern "C" fn(watched: u64, source: u64) -> u64,
    returns: Is,
}

macro_rules! cases {
    ($table:ident: $($name:ident -> $returns:expr),* $(,)?) => {
        unsafe extern "C" {
            $(
                #[link_name = concat!("op_", stringify!($name))]
                safe fn $name(watched: u64, source: u64) -> u64;
            )*
        }
        const $table: &[Case] = &[$(Case { run: $name, returns: $returns }),*];
    };
}

cases!(CASES:
    base -> Watched(0x10),
    base_index -> Watched(0x20),
    index_only -> Watched(0x28),
    absolute -> Watched(0x30),
    moffs -> Watched(0x38),
    rip_relative -> Watched(0x40),
    rip_relative_and_immediate -> Value(1),
    address_of_32_bits -> Watched(0x50),
    address_of_32_bits_wraps -> Watched(0x58),
    negative_displacement -> Watched(0x60),
    fs_base -> Watched(0x68),
    gs_base -> Watched(0x70),
    xlat -> Value(0x88),
    byte -> Value(0x90),
    store -> Anything,
    store_immediate -> Anything,
    compare -> Value(1),
    conditional_move_not_done -> Value(0),
    set_byte -> Anything,
    increment -> Anything,
    add_to_memory -> Anything,
    exchange -> Watched(0xd0),
    exchange_and_add -> Watched(0xd8),
    compare_exchange -> Watched(0xe0),
    compare_exchange_differs -> Watched(0xe8),
    compare_exchange_16 -> Watched(0xf0),
    shift -> Anything,
    bit_test -> Anything,
    bit_test_below -> Value(1),
    bit_test_immediate -> Anything,
    no_access -> Watched(0x120),
    load_across -> Anything,
    wide_load_across -> Anything,
    add_across -> Anything,
    push -> Anything,
    pop -> Watched(0x208),
    push_memory -> Anything,
    push_memory_by_rsp -> Anything,
    pop_memory -> Anything,
    pop_memory_by_rsp -> Anything,
    push_word -> Anything,
    call -> Anything,
    ret -> Anything,
    call_memory -> Anything,
    ret_and_drop -> Value(0x2a0),
    jump_memory -> Anything,
    enter -> Value(0x288),
    enter_nested -> Anything,
    leave -> Watched(0x2c8),
    push_flags -> Anything,
    pop_flags -> Anything,
    far_return -> Anything,
    interrupt_return -> Watched(0x328),
    movs -> Anything,
    stos -> Anything,
    lods -> Source(0x108),
    outs -> Anything,
    ins -> Anything,
    rep_movs_up -> Value(0),
    rep_movs_down -> Value(0),
    rep_stos_up -> Value(0),
    rep_stos_down -> Value(0),
    rep_of_nothing -> Anything,
    rep_lods -> Source(0x1008),
    rep_movs_address_of_32_bits -> Value(0),
    cmps -> Value(1),
    scas_until_found -> Value(97),
    scas_into_next_page -> Value(0),
    store_80_bits -> Anything,
    load_integer -> Anything,
    fpu_environment -> Anything,
    control_word -> Anything,
    store_mxcsr -> Anything,
    load_mxcsr -> Anything,
    movaps -> Anything,
    masked_move -> Anything,
    fxsave -> Anything,
    fxrstor -> Anything,
    fxsave_across -> Anything,
    store_tables -> Anything,
    load_tables -> Anything,
    store_task -> Anything,
    flush_line -> Anything,
);

cases!(CASES_WITH_AVX2:
    clear_headers -> Anything,
    xsave -> Anything,
    xrstor -> Anything,
    vmaskmov -> Anything,
    vmovups_32 -> Anything,
    gather -> Watched(0x540),
    gather_by_mask -> Source(0x130),
    masked_move_before_border -> Anything,
    vmaskmov_behind_border -> Anything,
    vmaskmov_load -> Anything,
    xsave_across -> Anything,
    xsave_without_avx -> Anything,
    xsaveopt_avx_alone -> Anything,
    xrstor_across -> Anything,
    xrstor_of_what_is_there -> Anything,
);

cases!(CASES_WITH_MPX:
    bounds_off -> Anything,
    bounds -> Anything,
);

/// What `WATCHED` holds at the end where cases wrote, or must not have written.
const WRITTEN: &[(u64, Is)] = &[
    (0x98, Source(0)),
    (0xa0, Value(0x1234)),
    (0xd0, Value(0x77)),
    (0xd8, Watched(0xd9)),
    (0xe0, Value(0x88)),
    (0xe8, Watched(0xe8)),
    (0xf0, Value(0xaa)),
    (0xf8, Value(0xbb)),
    (0xc0, Watched(0xc1)),
    (0xc8, Watched(0xd8)),
    (0x108, Watched(0x108)),
    (0x110, Watched(0x110)),
    (0x118, Watched(0x11a)),
    (0x1108, Watched(0x1118)),
    (0x200, Source(0)),
    (0x210, Source(0x10)),
    (0x220, Watched(0x240)),
    (0x248, Watched(0x230)),
    (0x298, Source(0)),
    (0x2a8, Watched(0x2b8)),
    (0x2b0, Source(0x40)),
    (0x2b8, Source(0x48)),
    (0x330, Source(0x100)),
    (0x350, Source(0x118)),
    (0x358, Source(0x120)),
    (0xfe0, Source(0xfd8)),
    (0xff8, Value(0xeeee_eeee_0000_0000)),
    (0x1000, Value(0xeeee_eeee)),
    (0x1018, Source(0x1010)),
    (0x400, Value(1 << 63)),
    (0x460, Watched(0x450)),
    (0x470, Value(u64::MAX)),
    (0x478, Watched(0x478)),
];

unsafe extern "C" {
    static target_ret: u8;
    static target_call: u8;
    static target_ret_and_drop: u8;
    static target_jump: u8;
    static target_far_return: u8;
    static target_interrupt_return: u8;
    /// Needs XSAVE.
    safe fn enable_xsave();
}

guest::main!(main);

fn main() {
    let (watched, source) = (WATCHED.address(), SOURCE.address());
    fill(watched, source);
    let mut cases = run(CASES, watched, source);
    if has_avx2() {
        enable_xsave();
        cases += run(CASES_WITH_AVX2, watched, source);
    } else {
        println!("no AVX2 here: {} cases left out", CASES_WITH_AVX2.len());
    }
    if cpu::cpuid(7, 0)[1] & 1 << 14 != 0 {
        cases += run(CASES_WITH_MPX, watched, source);
    } else {
        println!("no MPX here: {} cases left out", CASES_WITH_MPX.len());
    }
    checkpoint(2, watched, source, 0);
    for (offset, is) in WRITTEN {
        let found = access::read(watched + offset);
        if !is.right(found, watched, source) {
            failure!("the word at {offset:#x} holds {found:#x}");
        }
    }
    if access::read(source + 0x18) != watched + 0x230 {
        failure!("pop to memory wrote {:#x}", access::read(source + 0x18));
    }
    println!("{cases} cases");
    verdict::success();
}

fn run(cases: &[Case], watched: u64, source: u64) -> usize {
    for (number, case) in cases.iter().enumerate() {
        checkpoint(1, watched, source, (case.run as *const ()).expose_provenance() as u64);
        let returned = (case.run)(watched, source);
        if !case.returns.right(returned, watched, source) {
            failure!("case {number} returned {returned:#x}");
        }
    }
    cases.len()
}

impl Is {
    fn right(self, value: u64, watched: u64, source: u64) -> bool {
        match self {
            Watched(offset) => value == watched + offset,
            Source(offset) => value == source + offset,
            Value(due) => value == due,
            Anything => true,
        }
    }
}

/// Each word its own address; and the addresses that cases return to or jump to.
fn fill(watched: u64, source: u64) {
    for offset in (0..2 * PAGE_SIZE).step_by(8) {
        access::write(watched + offset, watched + offset);
        access::write(source + offset, source + offset);
    }
    let address = |symbol: *const u8| symbol.expose_provenance() as u64;
    access::write(watched + 0x270, address(&raw const target_ret));
    access::write(source + 0x28, address(&raw const target_call));
    access::write(watched + 0x288, address(&raw const target_ret_and_drop));
    access::write(source + 0x30, address(&raw const target_jump));
    access::write(watched + 0x2e0, address(&raw const target_far_return));
    access::write(watched + 0x2e8, CODE_SEGMENT);
    let frame = [address(&raw const target_interrupt_return), CODE_SEGMENT, FLAGS, watched + 0x328, DATA_SEGMENT];
    for (offset, word) in (0x300..).step_by(8).zip(frame) {
        access::write(watched + offset, word);
    }
}

/// The runtime's segments, and flags with nothing set.
const CODE_SEGMENT: u64 = 0x08;
const DATA_SEGMENT: u64 = 0x10;
const FLAGS: u64 = 2;

fn has_avx2() -> bool {
    let ([.., features, _], [_, extended, ..]) = (cpu::cpuid(1, 0), cpu::cpuid(7, 0));
    features & 1 << 26 != 0 && extended & 1 << 5 != 0
}
