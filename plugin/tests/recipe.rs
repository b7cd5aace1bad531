//! What an instruction will touch, from its bytes and plain register values.

use mem_event::{CpuEventKind, Rights};
use mem_event_plugin::insn::decode::{Decoded, InstructionReader, is_checkpoint};
use mem_event_plugin::insn::recipe::{Recipe, Touch};
use mem_event_plugin::insn::registers::{CodeSize, Registers, segment};
use mem_event_plugin::insn::special::{ControlSource, Special};

struct Plain {
    general: [u64; 16],
    bases: [u64; 6],
    rip: u64,
    direction: i64,
    stack_mask: u64,
    vectors: [[u64; 4]; 16],
    privilege: u8,
    enabled_state: u64,
    in_use: u64,
    bounds: Option<u64>,
    memory: Vec<(u64, u64)>,
    is_protected: bool,
    is_long: bool,
    task: Option<(u64, bool)>,
}

impl Registers for Plain {
    fn general(&self, number: u8) -> u64 {
        self.general[usize::from(number)]
    }
    fn segment_base(&self, number: u8) -> u64 {
        self.bases[usize::from(number)]
    }
    fn instruction_pointer(&self) -> u64 {
        self.rip
    }
    fn stack_mask(&self) -> u64 {
        self.stack_mask
    }
    fn vector(&self, number: u8) -> Option<[u64; 4]> {
        Some(self.vectors[usize::from(number)])
    }
    fn direction(&self) -> i64 {
        self.direction
    }
    fn privilege(&self) -> u8 {
        self.privilege
    }
    fn alignment_check(&self) -> bool {
        false
    }
    fn enabled_state(&self) -> u64 {
        self.enabled_state
    }
    fn state_in_use(&self) -> u64 {
        self.in_use
    }
    fn bound_directory(&self) -> Option<u64> {
        self.bounds
    }
    fn is_protected(&self) -> bool {
        self.is_protected
    }
    fn is_long(&self) -> bool {
        self.is_long
    }
    fn descriptor_table(&self, local: bool) -> Option<std::ops::RangeInclusive<u64>> {
        (!local).then_some(GDT..=GDT + 0x6f)
    }
    fn task_state(&self) -> Option<(u64, bool)> {
        self.task
    }
    fn quad(&self, gla: u64) -> Option<u64> {
        self.memory.iter().find(|(address, _)| *address == gla).map(|(_, quad)| *quad)
    }
}

/// Register n holds (n + 1) * 0x10000, segment n begins at (n + 1) << 32, the code runs on page 0x7000.
fn registers() -> Plain {
    Plain {
        general: std::array::from_fn(|n| (n as u64 + 1) * 0x10000),
        bases: std::array::from_fn(|n| (n as u64 + 1) << 32),
        rip: 0x7000,
        direction: 1,
        stack_mask: u64::MAX,
        vectors: [[0; 4]; 16],
        privilege: 0,
        enabled_state: 0x21f,
        in_use: !0,
        bounds: None,
        memory: Vec::new(),
        is_protected: true,
        is_long: true,
        task: None,
    }
}

const GDT: u64 = 0x9000;
const TASK: u64 = 0xa000;
/// Selectors of data of level 0, of code of level 3, of gates that lead to level 0. Code of level 0 is 8.
const DATA: u16 = 0x10;
const USER_CODE: u16 = 0x1b;
const GATE_32: u16 = 0x2b;
const GATE_16: u16 = 0x33;
const GATE_64: u16 = 0x3b;

/// 32-bit code of a level with descriptors for it: gates with two parameters, a task state with a stack for level 0 at 0x30000.
fn protected(privilege: u8) -> Plain {
    let mut it = Plain { stack_mask: 0xffff_ffff, is_long: false, bases: [0; 6], privilege, ..registers() };
    let gate = |kind: u64| 0x0000_e002_0008_0000 | kind << 40;
    let table = [
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        gate(12),
        gate(4),
        gate(12),
        0,
    ];
    it.memory = (GDT + 8..).step_by(8).zip(table).collect();
    it.memory.extend([(TASK + 4, u64::from(DATA) << 32 | 0x3_0000), (TASK + 2, 0x0010_8000)]);
    it.task = Some((TASK, true));
    it
}

/// What is touched in fact, by the first byte.
fn touched(bytes: &[u8], code: CodeSize, registers: &Plain) -> Vec<(u64, u16, Rights)> {
    let mut all = touches(bytes, code, registers);
    all.retain(|(_, size, _)| *size > 0);
    all.sort_by_key(|(gla, ..)| *gla);
    all
}

/// How many bytes are touched, first and last, with these rights.
fn span(all: &[(u64, u16, Rights)], rights: Rights) -> Option<(u64, u64)> {
    let of = || all.iter().filter(|(.., wanted)| *wanted == rights);
    let first = of().map(|(gla, ..)| *gla).min()?;
    Some((first, of().map(|(gla, size, _)| gla + u64::from(*size)).max()? - first))
}

const RAX: u64 = 0x10000;
const RCX: u64 = 0x20000;
const RBX: u64 = 0x40000;
const RSP: u64 = 0x50000;
const RBP: u64 = 0x60000;
const RSI: u64 = 0x70000;
const RDI: u64 = 0x80000;

fn recipe(bytes: &[u8], code: CodeSize) -> Recipe {
    // Translated at one address, run at another: only the low 12 bits agree.
    match InstructionReader::default().read(bytes, 0xffff_ffff_8123_4050, code) {
        Decoded::Touches(recipe) => recipe,
        other => panic!("{bytes:x?}: {other:?}"),
    }
}

fn touches(bytes: &[u8], code: CodeSize, registers: &Plain) -> Vec<(u64, u16, Rights)> {
    let recipe = recipe(bytes, code);
    (0..recipe.operands.len())
        .map(|number| recipe.touch(registers, number, 0))
        .map(|Touch { gla, size, rights }| (gla, size, rights))
        .collect()
}

fn touches64(bytes: &[u8]) -> Vec<(u64, u16, Rights)> {
    touches(bytes, CodeSize::Bits64, &registers())
}

#[test]
fn an_operand_is_base_index_scale_and_displacement() {
    // mov rax, [rbx + rcx*4 + 0x10]
    assert_eq!(touches64(&[0x48, 0x8b, 0x44, 0x8b, 0x10]), [(RBX + RCX * 4 + 0x10, 8, Rights::R)]);
    // mov [rsp - 8], al
    assert_eq!(touches64(&[0x88, 0x44, 0x24, 0xf8]), [(RSP - 8, 1, Rights::W)]);
    // lock xadd [rdi], ecx
    assert_eq!(touches64(&[0xf0, 0x0f, 0xc1, 0x0f]), [(RDI, 4, Rights::RW)]);
}

#[test]
fn a_relative_operand_follows_the_page_that_the_code_runs_on() {
    // mov rax, [rip + 0x1000] at page offset 0x50, 7 bytes long
    let bytes = [0x48, 0x8b, 0x05, 0x00, 0x10, 0x00, 0x00];
    assert_eq!(touches64(&bytes), [(0x7000 + 0x50 + 7 + 0x1000, 8, Rights::R)]);
    let mut elsewhere = registers();
    elsewhere.rip = 0x9000_0000_0abc;
    assert_eq!(touches(&bytes, CodeSize::Bits64, &elsewhere), [(0x9000_0000_0050 + 7 + 0x1000, 8, Rights::R)]);
    assert_eq!(recipe(&bytes, CodeSize::Bits64).rip(&elsewhere), 0x9000_0000_0050);
    // mov rax, [rip - 0x60]: before the page
    assert_eq!(touches64(&[0x48, 0x8b, 0x05, 0xa0, 0xff, 0xff, 0xff]), [(0x7000 + 0x50 + 7 - 0x60, 8, Rights::R)]);
}

#[test]
fn an_operand_across_4_gib_goes_on_at_0_in_32_bit_code() {
    let mut high = registers();
    high.general[3] = 0xffff_fffe;
    high.bases = [0; 6];
    // mov eax, [ebx]
    let recipe = recipe(&[0x8b, 0x03], CodeSize::Bits32);
    let touch = recipe.touch(&high, 0, 0);
    assert_eq!(recipe.pages(touch).collect::<Vec<_>>(), [0xffff_fffe, 0]);
}

/// What is touched of the area that an instruction names by RDI, and what is wanted.
fn saved(bytes: &[u8], code: CodeSize, registers: &Plain) -> Vec<(u64, u16, Rights)> {
    let touched = touches(bytes, code, registers).into_iter().filter(|(_, size, _)| *size > 0);
    touched.map(|(gla, size, rights)| (gla - RDI, size, rights)).collect()
}

const LEGACY: [(u64, u16, Rights); 4] =
    [(0, 24, Rights::W), (24, 8, Rights::W), (32, 128, Rights::W), (160, 256, Rights::W)];
const HEADER: (u64, u16, Rights) = (512, 8, Rights::RW);

#[test]
fn xsave_touches_the_components_that_are_asked_for_and_enabled() {
    let xsave = [0x0f, 0xae, 0x27];
    let mut asks = registers();
    let mut with = |mask: u64| {
        (asks.general[0], asks.general[2]) = (mask & 0xffff_ffff, mask >> 32);
        saved(&xsave, CodeSize::Bits64, &asks)
    };
    let all = [
        &LEGACY[..],
        &[(576, 256, Rights::W), (960, 64, Rights::W), (1024, 16, Rights::W), (2688, 8, Rights::W), HEADER],
    ];
    assert_eq!(with(!0), all.concat());
    assert_eq!(with(4), [(576, 256, Rights::W), HEADER]);
    assert_eq!(with(1), [LEGACY[0], LEGACY[2], HEADER]);
    assert_eq!(with(2), [LEGACY[1], LEGACY[3], HEADER]);
    assert_eq!(with(0x200), [(2688, 8, Rights::W), HEADER]);
    assert_eq!(with(1 << 5 | 1 << 40), [HEADER], "what is not enabled is not saved");
    let narrow = Plain { general: asks.general.map(|_| RDI), enabled_state: 0, ..registers() };
    assert_eq!(saved(&xsave, CodeSize::Bits64, &narrow), [HEADER]);
}

#[test]
fn code_of_32_bits_saves_eight_vector_registers() {
    let mut asks = Plain { bases: [0; 6], ..registers() };
    (asks.general[0], asks.general[2]) = (6, 0);
    let due = [LEGACY[1], (160, 128, Rights::W), (576, 128, Rights::W), HEADER];
    assert_eq!(saved(&[0x0f, 0xae, 0x27], CodeSize::Bits32, &asks), due);
}

#[test]
fn xsaveopt_leaves_out_what_is_not_in_use_but_mxcsr() {
    let mut asks = Plain { in_use: !(1 << 3 | 1 << 1), ..registers() };
    (asks.general[0], asks.general[2]) = (0xa, 0);
    assert_eq!(saved(&[0x0f, 0xae, 0x37], CodeSize::Bits64, &asks), [LEGACY[1], HEADER]);
}

#[test]
fn xrstor_reads_its_header_first_and_then_what_that_says_is_there() {
    let xrstor = [0x0f, 0xae, 0x2f];
    let read = |first, size| (first, size, Rights::R);
    let mut asks = Plain { memory: vec![(RDI + 512, 4)], ..registers() };
    (asks.general[0], asks.general[2]) = (7, 0);
    let mxcsr = read(24, 8);
    assert_eq!(saved(&xrstor, CodeSize::Bits64, &asks), [read(512, 24), mxcsr, read(576, 256)]);
    asks.memory.clear();
    let all = [read(512, 24), read(0, 24), mxcsr, read(32, 128), read(160, 256), read(576, 256)];
    assert_eq!(saved(&xrstor, CodeSize::Bits64, &asks), all, "what cannot be read says that all is there");
}

#[test]
fn what_qemu_does_not_know_touches_nothing() {
    // xsavec, xsaves and xrstors [rdi]; kmovw k0, [rdi]; vmptrld [rdi]
    let xsave = [[0x0f, 0xc7, 0x27], [0x0f, 0xc7, 0x2f], [0x0f, 0xc7, 0x1f]];
    let others: [&[u8]; 2] = [&[0xc5, 0xf8, 0x90, 0x07], &[0x0f, 0xc7, 0x37]];
    for bytes in xsave.iter().map(|bytes| &bytes[..]).chain(others) {
        assert_eq!(InstructionReader::default().read(bytes, 0, CodeSize::Bits64), Decoded::Nothing, "{bytes:x?}");
    }
}

#[test]
fn a_rex_prefix_counts_wherever_it_stands_as_qemu_has_it() {
    // mov eax, [r15] with REX.B before an operand-size prefix, and with one that a later REX overrides
    assert_eq!(touches64(&[0x41, 0x66, 0x8b, 0x07]), [(0x8_0000 + 0x8_0000, 2, Rights::R)]);
    assert_eq!(touches64(&[0x41, 0x3e, 0x48, 0x8b, 0x07]), [(RDI, 8, Rights::R)]);
    assert_eq!(recipe(&[0x41, 0x3e, 0x48, 0x8b, 0x07], CodeSize::Bits64).length, 5);
}

#[test]
fn what_qemu_reads_beyond_an_operand_is_foreseen() {
    // cvtdq2pd xmm0, [rdi]; punpcklbw mm0, [rdi]; vfmadd132sd xmm0, xmm0, [rdi]; vpslld ymm0, ymm0, [rdi]
    assert_eq!(touches64(&[0xf3, 0x0f, 0xe6, 0x07]), [(RDI, 16, Rights::R)]);
    assert_eq!(touches64(&[0x0f, 0x60, 0x07]), [(RDI, 8, Rights::R)]);
    assert_eq!(touches64(&[0xc4, 0xe2, 0xf9, 0x99, 0x07]), [(RDI, 16, Rights::R)]);
    assert_eq!(touches64(&[0xc5, 0xfd, 0xf2, 0x07]), [(RDI, 32, Rights::R)]);
    // push word ptr [rdi]
    assert_eq!(touches64(&[0x66, 0xff, 0x37]), [(RDI, 8, Rights::R), (RSP - 2, 2, Rights::W)]);
}

#[test]
fn what_takes_the_kernel_touches_nothing_in_ring_3() {
    // lgdt [rdi]
    let lgdt = [0x0f, 0x01, 0x17];
    assert_eq!(touches64(&lgdt), [(RDI, 10, Rights::R)]);
    assert_eq!(touches(&lgdt, CodeSize::Bits64, &Plain { privilege: 3, ..registers() })[0].1, 0);
}

#[test]
fn bounds_are_moved_only_while_they_are_on() {
    // bndmov [rdi], bnd0; bndmov bnd0, [rdi]
    let (store, load) = ([0x66, 0x0f, 0x1b, 0x07], [0x66, 0x0f, 0x1a, 0x07]);
    assert_eq!(saved(&store, CodeSize::Bits64, &registers()), []);
    let on = Plain { bounds: Some(1), bases: [0; 6], ..registers() };
    assert_eq!(saved(&store, CodeSize::Bits64, &on), [(0, 16, Rights::W)]);
    assert_eq!(saved(&load, CodeSize::Bits64, &on), [(0, 16, Rights::R)]);
    assert_eq!(saved(&store, CodeSize::Bits32, &on), [(0, 8, Rights::W)]);
}

#[test]
fn bounds_of_a_pointer_are_found_by_directory_and_table() {
    // bndstx [rdi + rax], bnd0; bndldx bnd0, [rdi + rax]: rax is the pointer's value, and its place is rdi.
    let (store, load) = ([0x0f, 0x1b, 0x04, 0x07], [0x0f, 0x1a, 0x04, 0x07]);
    let directory = 0x5000 + (RDI >> 20 << 3);
    let table = 0x9_0000 + (RDI >> 3 << 5);
    let on = Plain { bounds: Some(5 << 20 | 1), memory: vec![(directory, 0x9_0001)], ..registers() };
    let entry = |rights| vec![(directory, 8, Rights::R), (table, 24, rights)];
    assert_eq!(touches(&store, CodeSize::Bits64, &on), entry(Rights::W));
    assert_eq!(touches(&load, CodeSize::Bits64, &on), entry(Rights::R));
    let absent = Plain { memory: vec![(directory, 0x9_0000)], ..on };
    assert_eq!(touches(&store, CodeSize::Bits64, &absent)[1].1, 0, "a table that is not there is not touched");
    let flat = Plain {
        bases: [0; 6],
        bounds: Some(0x5001),
        memory: vec![(0x5000 + (RDI >> 12 << 2), 0x9_0001)],
        ..registers()
    };
    // bndstx [edi], bnd0
    let due = [(0x5000 + (RDI >> 12 << 2), 4, Rights::R), (0x9_0000 + ((RDI >> 2 & 0x3ff) << 4), 12, Rights::W)];
    assert_eq!(touches(&[0x0f, 0x1b, 0x07], CodeSize::Bits32, &flat), due);
}

#[test]
fn the_stack_segment_says_how_wide_the_stack_pointer_is() {
    let wide = Plain { stack_mask: 0xffff_ffff, bases: [0; 6], ..registers() };
    let narrow = Plain { stack_mask: 0xffff, bases: [0; 6], ..registers() };
    // push ax in 16-bit code; push eax in 32-bit code
    assert_eq!(touches(&[0x50], CodeSize::Bits16, &wide), [(RSP - 2, 2, Rights::W)]);
    assert_eq!(touches(&[0x50], CodeSize::Bits16, &narrow), [((RSP - 2) & 0xffff, 2, Rights::W)]);
    assert_eq!(touches(&[0x50], CodeSize::Bits32, &wide), [(RSP - 4, 4, Rights::W)]);
    assert_eq!(touches(&[0x50], CodeSize::Bits32, &narrow), [((RSP - 4) & 0xffff, 4, Rights::W)]);
    // leave: by ebp, but on the stack
    assert_eq!(touches(&[0xc9], CodeSize::Bits32, &narrow), [(RBP & 0xffff, 4, Rights::R)]);
    // pop [esp + 8]: the operand goes by the address size
    let popped = touches(&[0x8f, 0x44, 0x24, 0x08], CodeSize::Bits32, &narrow);
    assert_eq!(popped, [(RSP & 0xffff, 4, Rights::R), (RSP + 4 + 8, 4, Rights::W)]);
}

#[test]
fn the_stack_is_an_operand() {
    assert_eq!(touches64(&[0x53]), [(RSP - 8, 8, Rights::W)], "push rbx");
    assert_eq!(touches64(&[0x5b]), [(RSP, 8, Rights::R)], "pop rbx");
    assert_eq!(touches64(&[0xe8, 0, 0, 0, 0]), [(RSP - 8, 8, Rights::W)], "call");
    assert_eq!(touches64(&[0xc3]), [(RSP, 8, Rights::R)], "ret");
    assert_eq!(touches64(&[0xc9]), [(RBP, 8, Rights::R)], "leave");
    // push [rbx]: read, then write
    assert_eq!(touches64(&[0xff, 0x33]), [(RBX, 8, Rights::R), (RSP - 8, 8, Rights::W)]);
    // call [rbx]
    assert_eq!(touches64(&[0xff, 0x13]), [(RBX, 8, Rights::R), (RSP - 8, 8, Rights::W)]);
}

#[test]
fn segment_bases_count_in_every_mode_that_has_them() {
    // mov eax, gs:[rbx] and mov eax, ds:[rbx] in long mode
    assert_eq!(touches64(&[0x65, 0x8b, 0x03]), [((6 << 32) + RBX, 4, Rights::R)]);
    assert_eq!(touches64(&[0x3e, 0x8b, 0x03]), [(RBX, 4, Rights::R)]);
    // mov eax, [bx + si] in real mode: 16-bit offset, DS, 32-bit linear address
    let mut real = registers();
    real.general[3] = 0xffff;
    real.general[6] = 0x0003;
    real.bases[usize::from(segment::DS)] = 0x1_2340;
    assert_eq!(touches(&[0x66, 0x8b, 0x00], CodeSize::Bits16, &real), [(0x1_2340 + 2, 4, Rights::R)]);
    // push ax in real mode uses SS
    real.bases[usize::from(segment::SS)] = 0x9_0000;
    real.general[4] = 0x0100;
    real.stack_mask = 0xffff;
    assert_eq!(touches(&[0x50], CodeSize::Bits16, &real), [(0x9_00fe, 2, Rights::W)]);
    // mov eax, [ebx] in 32-bit code wraps at 4 GiB
    let mut flat = registers();
    flat.bases[usize::from(segment::DS)] = 0xffff_fff0;
    flat.general[3] = 0x20;
    assert_eq!(touches(&[0x8b, 0x03], CodeSize::Bits32, &flat), [(0x10, 4, Rights::R)]);
}

#[test]
fn an_address_size_prefix_cuts_the_offset() {
    let mut high = registers();
    high.general[3] = 0xffff_ffff_0000_1000;
    // mov eax, [ebx]
    assert_eq!(touches(&[0x67, 0x8b, 0x03], CodeSize::Bits64, &high), [(0x1000, 4, Rights::R)]);
}

#[test]
fn bit_instructions_reach_beyond_their_operand() {
    let mut bits = registers();
    // bts [rdi], rcx with bit 1000: byte 120 on
    bits.general[1] = 1000;
    assert_eq!(touches(&[0x48, 0x0f, 0xab, 0x0f], CodeSize::Bits64, &bits), [(RDI + 120, 8, Rights::RW)]);
    // bt [rdi], ecx with bit -1: the dword before
    bits.general[1] = 0xffff_ffff;
    assert_eq!(touches(&[0x0f, 0xa3, 0x0f], CodeSize::Bits64, &bits), [(RDI - 4, 4, Rights::R)]);
    // bt [rip + 0x100], ecx: relative to the page, and moved all the same
    bits.general[1] = 64;
    assert_eq!(
        touches(&[0x0f, 0xa3, 0x0d, 0, 1, 0, 0], CodeSize::Bits64, &bits),
        [(0x7000 + 0x50 + 7 + 0x100 + 8, 4, Rights::R)]
    );
    // bt [rdi], 200: an immediate stays within the operand
    assert_eq!(touches(&[0x48, 0x0f, 0xba, 0x27, 200], CodeSize::Bits64, &bits), [(RDI, 8, Rights::R)]);
}

#[test]
fn xlat_adds_al() {
    let mut table = registers();
    table.general[0] = 0x1234;
    assert_eq!(touches(&[0xd7], CodeSize::Bits64, &table), [(RBX + 0x34, 1, Rights::R)]);
}

#[test]
fn a_repeated_string_instruction_meets_each_page_once_in_order() {
    // rep movsq, 1024 of them up, from offset 0xff8 of a page
    let recipe = recipe(&[0xf3, 0x48, 0xa5], CodeSize::Bits64);
    let mut registers = registers();
    registers.general[1] = 1024;
    registers.general[6] = RSI + 0xff8;
    let mut pages = Vec::new();
    let mut step = 0;
    while step < recipe.steps(&registers) {
        pages.push((recipe.touch(&registers, 0, step).gla >> 12, recipe.touch(&registers, 1, step).gla >> 12));
        step = recipe.next_page(&registers, step);
    }
    let (from, to) = (RSI >> 12, RDI >> 12);
    assert_eq!(pages, [(from, to), (from + 1, to), (from + 1, to + 1), (from + 2, to + 1)]);
    registers.general[1] = 0;
    assert_eq!(recipe.steps(&registers), 0, "no count, no access");
}

#[test]
fn a_repeated_string_instruction_goes_down_with_the_direction_flag() {
    // rep stosb down from the third byte of a page
    let recipe = recipe(&[0xf3, 0xaa], CodeSize::Bits64);
    let mut registers = registers();
    registers.direction = -1;
    registers.general[1] = 5000;
    registers.general[7] = RDI + 2;
    assert_eq!(recipe.touch(&registers, 0, 0), Touch { gla: RDI + 2, size: 1, rights: Rights::W });
    assert_eq!(recipe.next_page(&registers, 0), 3);
    assert_eq!(recipe.touch(&registers, 0, 3).gla, RDI - 1);
    assert_eq!(recipe.next_page(&registers, 3), 3 + 4096);
}

#[test]
fn every_step_of_a_repetition_lies_on_a_page_that_was_announced() {
    // Against the plain model: all elements, one by one.
    let recipe = recipe(&[0xf3, 0xa5], CodeSize::Bits64);
    assert_eq!(recipe.repeat.map(|repeat| repeat.element), Some(4));
    for (offset, count, direction) in [(0u64, 3000, 1), (4095, 2100, 1), (4094, 1030, -1), (2, 1, 1), (1, 5000, -1)] {
        let mut registers = registers();
        registers.direction = direction;
        registers.general[1] = count;
        registers.general[6] = RSI + offset;
        registers.general[7] = RDI + (offset * 7) % 4096;
        let pages_of = |step| {
            (0..2)
                .flat_map(|n| {
                    let touch = recipe.touch(&registers, n, step);
                    [(n, touch.gla >> 12), (n, (touch.gla + 3) >> 12)]
                })
                .collect::<Vec<_>>()
        };
        let mut announced = Vec::new();
        let mut step = 0;
        while step < recipe.steps(&registers) {
            announced.extend(pages_of(step));
            step = recipe.next_page(&registers, step);
        }
        for step in 0..count {
            for page in pages_of(step) {
                assert!(announced.contains(&page), "step {step} of {count} from {offset} in direction {direction}");
            }
        }
    }
}

#[test]
fn a_repetition_goes_on_from_the_other_end_where_its_address_size_ends() {
    for (direction, first, ends) in [(1, 0xfff0, [0xffff, 0]), (-1, 0x0f, [0, 0xffff])] {
        // addr16 rep stosb in 32-bit code: across the end of 64 KiB, from either side.
        let recipe = recipe(&[0x67, 0xf3, 0xaa], CodeSize::Bits32);
        let mut registers = registers();
        registers.bases[usize::from(segment::ES)] = 0x40_0800;
        registers.direction = direction;
        registers.general[1] = 0x20;
        registers.general[7] = 0xabcd_0000 | first;
        let gla = |step| recipe.touch(&registers, 0, step).gla;
        assert_eq!([gla(15), gla(16)], ends.map(|offset| 0x40_0800 + offset), "direction {direction}");
        assert_eq!(recipe.next_page(&registers, 0), 16, "the step that begins anew is on another page");
    }
}

#[test]
fn a_control_block_is_no_operand_and_lies_where_the_accumulator_says() {
    let mut registers = registers();
    registers.general[0] = 0x12_3456_7000;
    let block = |bytes: &[u8]| match recipe(bytes, CodeSize::Bits64) {
        Recipe { special: Special::ControlBlock(block), operands, .. } if operands.is_empty() => {
            (block.address(&registers).0, block.rights, block.enters)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(block(&[0x0f, 0x01, 0xd8]), (0x12_3456_7000, Rights::R, true), "vmrun");
    assert_eq!(block(&[0x0f, 0x01, 0xda]), (0x12_3456_7000, Rights::R, false), "vmload");
    assert_eq!(block(&[0x67, 0x0f, 0x01, 0xdb]), (0x3456_7000, Rights::W, false), "vmsave by EAX");
}

#[test]
fn a_repetition_is_foreseen_as_far_as_it_goes_before_its_next_check() {
    let recipe = recipe(&[0xf3, 0xaa], CodeSize::Bits64);
    let mut registers = registers();
    registers.general[1] = 1 << 40;
    assert_eq!(recipe.steps(&registers), 65_537);
    assert_eq!(recipe.count(&registers), 1 << 40);
}

#[test]
fn what_touches_no_memory_has_no_recipe() {
    let mut reader = InstructionReader::default();
    for bytes in
        [&[0x48, 0x8d, 0x03][..], &[0x0f, 0x1f, 0x00], &[0x90], &[0x0f, 0x18, 0x0b], &[0x48, 0x01, 0xd8], &[0xff, 0xff]]
    {
        assert_eq!(reader.read(bytes, 0, CodeSize::Bits64), Decoded::Nothing, "{bytes:x?}");
    }
}

#[test]
fn a_gather_with_a_mask_register_is_said_to_be_unforeseen() {
    // vpgatherdd zmm0 {k1}, [rdi + zmm2*4]: AVX-512, which QEMU does not emulate
    let bytes = [0x62, 0xf2, 0x7d, 0x49, 0x90, 0x04, 0x97];
    assert_eq!(
        InstructionReader::default().read(&bytes, 0, CodeSize::Bits64),
        Decoded::Unforeseen("vpgatherdd".to_owned())
    );
}

#[test]
fn what_changes_translations_empties_the_cache() {
    for bytes in [&[0x0f, 0x22, 0xd8][..], &[0x0f, 0x01, 0x3b], &[0x0f, 0x30], &[0x66, 0x0f, 0x38, 0x82, 0x03]] {
        assert!(recipe(bytes, CodeSize::Bits64).special.changes_translation(), "{bytes:x?}");
    }
    assert!(!recipe(&[0x53], CodeSize::Bits64).special.changes_translation());
    let writes: [(&[u8], u8, ControlSource); 5] = [
        (&[0x0f, 0x22, 0xe0], 4, ControlSource::General(0)),
        (&[0x41, 0x0f, 0x22, 0xd9], 3, ControlSource::General(9)),
        (&[0x0f, 0x06], 0, ControlSource::TaskSwitchedCleared),
        (&[0x0f, 0x01, 0xf3], 0, ControlSource::MachineStatus(3)),
        (&[0x0f, 0x01, 0x33], 0, ControlSource::MachineStatusInMemory),
    ];
    for (bytes, number, source) in writes {
        assert_eq!(recipe(bytes, CodeSize::Bits64).special, Special::WriteControl(number, source), "{bytes:x?}");
    }
    assert_eq!(recipe(&[0xcc], CodeSize::Bits64).special, Special::Trap(CpuEventKind::Int3));
    assert_eq!(recipe(&[0xf1], CodeSize::Bits64).special, Special::Trap(CpuEventKind::Debug));
    assert_eq!(RAX, 0x10000);
}

#[test]
fn only_the_marked_nop_is_a_checkpoint() {
    assert!(is_checkpoint(&[0x0f, 0x1f, 0x80, 0x4d, 0x45, 0x4d, 0x45]));
    assert!(!is_checkpoint(&[0x0f, 0x1f, 0x80, 0x4d, 0x45, 0x4d, 0x46]));
    assert!(!is_checkpoint(&[0x0f, 0x1f, 0x80]));
}

#[test]
fn a_gather_touches_what_its_indices_and_its_mask_say() {
    let mut gathering = registers();
    // vpgatherdd xmm0, [rdi + xmm2*4 + 0x10], xmm1
    let bytes = [0xc4, 0xe2, 0x71, 0x90, 0x44, 0x97, 0x10];
    gathering.vectors[2] = [0xffff_ffff_0000_0001, 0x0000_1000_7fff_0000, 0, 0];
    gathering.vectors[1] = [0x8000_0000_ffff_ffff, 0x8000_0000_7fff_ffff, 0, 0];
    let elements = touches(&bytes, CodeSize::Bits64, &gathering);
    let touched: Vec<_> = elements.into_iter().filter(|(_, size, _)| *size > 0).collect();
    assert_eq!(
        touched,
        [(RDI + 0x14, 4, Rights::R), (RDI + 0x10 - 4, 4, Rights::R), (RDI + 0x10 + 0x4000, 4, Rights::R)]
    );
    // vgatherqpd ymm0, [rdi + ymm2*8], ymm1
    gathering.vectors[2] = [1, u64::MAX, 0, 1 << 30];
    gathering.vectors[1] = [u64::MAX, u64::MAX, 0, 1 << 63];
    let elements = touches(&[0xc4, 0xe2, 0xf5, 0x93, 0x04, 0xd7], CodeSize::Bits64, &gathering);
    let touched: Vec<_> = elements.into_iter().filter(|(_, size, _)| *size > 0).collect();
    assert_eq!(touched, [(RDI + 8, 8, Rights::R), (RDI - 8, 8, Rights::R), (RDI.wrapping_add(8 << 30), 8, Rights::R)]);
}

#[test]
fn a_masked_move_touches_the_elements_of_its_mask() {
    let mut moving = registers();
    moving.vectors[1] = [0x80 << 8 | 0x80 << 56, 0x80, 0, 0];
    let touched = |bytes: &[u8], moving: &Plain| -> Vec<_> {
        touches(bytes, CodeSize::Bits64, moving).into_iter().filter(|(_, size, _)| *size > 0).collect()
    };
    // maskmovdqu xmm0, xmm1
    let bytes = [0x66, 0x0f, 0xf7, 0xc1];
    assert_eq!(touched(&bytes, &moving), [(RDI + 1, 1, Rights::W), (RDI + 7, 1, Rights::W), (RDI + 8, 1, Rights::W)]);
    // vmaskmovps [rdi], ymm1, ymm0, and vmaskmovps ymm0, ymm1, [rdi]
    moving.vectors[1] = [0x8000_0000_0000_0000, 0, 0x8000_0000, 0];
    assert_eq!(touched(&[0xc4, 0xe2, 0x75, 0x2e, 0x07], &moving), [(RDI + 4, 4, Rights::W), (RDI + 16, 4, Rights::W)]);
    assert_eq!(touched(&[0xc4, 0xe2, 0x75, 0x2c, 0x07], &moving), [(RDI, 32, Rights::R)], "QEMU reads the whole");
}

#[test]
fn a_return_to_an_outer_level_takes_its_stack_too() {
    let mut inner = protected(0);
    // retf; retf 0x20; iretd
    for (bytes, own, passed) in [(&[0xcb][..], 8, 0), (&[0xca, 0x20, 0], 8, 0x20), (&[0xcf], 12, 0)] {
        inner.memory.retain(|(address, _)| *address < RSP);
        inner.memory.extend([(RSP + 4, u64::from(USER_CODE)), (RSP + 8, 2)]);
        let outer = touched(bytes, CodeSize::Bits32, &inner);
        assert_eq!(outer.last(), Some(&(RSP + own + passed, 8, Rights::R)), "{bytes:x?}");
        for selector in [0, 3, 8, u64::from(DATA) | 3] {
            // Nothing, nothing of level 3, the same level, no code.
            inner.memory.retain(|(address, _)| *address != RSP + 4);
            inner.memory.push((RSP + 4, selector));
            let same = touched(bytes, CodeSize::Bits32, &inner);
            assert_eq!(span(&same, Rights::R), Some((RSP, own)), "{bytes:x?} to {selector:#x}");
        }
    }
    inner.is_protected = false;
    inner.memory.push((RSP + 4, u64::from(USER_CODE)));
    assert_eq!(span(&touched(&[0xcb], CodeSize::Bits32, &inner), Rights::R), Some((RSP, 8)), "real mode has no levels");
}

#[test]
fn a_return_to_virtual_8086_mode_takes_six_words_more() {
    let mut inner = protected(0);
    inner.memory.extend([(RSP + 4, 0x1234), (RSP + 8, 1 << 17)]);
    assert_eq!(span(&touched(&[0xcf], CodeSize::Bits32, &inner), Rights::R), Some((RSP, 36)));
}

/// `call 0x..:0`
fn call(selector: u16) -> Vec<u8> {
    let [low, high] = selector.to_le_bytes();
    vec![0x9a, 0, 0, 0, 0, low, high]
}

#[test]
fn a_call_through_a_gate_pushes_onto_the_stack_of_the_inner_level_and_copies_parameters() {
    let outer = protected(3);
    let inner = touched(&call(GATE_32), CodeSize::Bits32, &outer);
    // SS, ESP, two parameters, CS, EIP.
    assert_eq!(inner, [(0x3_0000 - 24, 24, Rights::W), (RSP, 8, Rights::R)]);
    let inner = touched(&call(GATE_16), CodeSize::Bits32, &outer);
    assert_eq!(inner, [(0x3_0000 - 12, 12, Rights::W), (RSP, 4, Rights::R)]);
    let mut of_16_bits = protected(3);
    of_16_bits.task = Some((TASK, false));
    assert_eq!(touched(&call(GATE_16), CodeSize::Bits32, &of_16_bits)[0], (0x8000 - 12, 12, Rights::W));
    let mut long = protected(3);
    long.is_long = true;
    long.memory.retain(|(address, _)| *address != GDT + 8);
    long.memory.push((GDT + 8, 0x00af_9b00_0000_ffff));
    assert_eq!(touched(&call(GATE_64), CodeSize::Bits32, &long), [(0x10_0003_0000 - 32, 32, Rights::W)]);
}

#[test]
fn a_call_in_its_own_level_pushes_two_words_of_its_gates_or_its_own() {
    let own = protected(0);
    for (selector, bytes) in [(8, 8_u16), (GATE_32 & !3, 8), (GATE_16 & !3, 4)] {
        assert_eq!(touched(&call(selector), CodeSize::Bits32, &own), [(RSP - u64::from(bytes), bytes, Rights::W)]);
    }
    // Nothing, data, code of another level, beyond the table.
    for selector in [0, DATA, USER_CODE, 0x80] {
        assert_eq!(touched(&call(selector), CodeSize::Bits32, &own), [], "{selector:#x}");
    }
}

#[test]
fn a_call_by_a_pointer_in_memory_is_told_by_its_selector() {
    let mut outer = protected(3);
    outer.memory.push((RBX + 4, u64::from(GATE_32)));
    // call far [ebx]
    let inner = touched(&[0xff, 0x1b], CodeSize::Bits32, &outer);
    assert_eq!(span(&inner, Rights::W), Some((0x3_0000 - 24, 24)));
    assert!(inner.contains(&(RBX, 6, Rights::R)) && inner.contains(&(RSP, 8, Rights::R)), "{inner:x?}");
}

/// Bits as Intel's manual lays them out: scale, size of addresses, size of the operand, segment, index, base, which instruction.
#[test]
fn an_access_of_a_descriptor_table_is_described_as_intels_processors_do() {
    use mem_event::DescriptorTable::{Gdtr, Idtr, Ldtr, Tr};
    let cases: [(&[u8], CodeSize, _); 7] = [
        (&[0x0f, 0x01, 0x87, 0x80, 0, 0, 0], CodeSize::Bits64, (Gdtr, false, 0x03c1_8100, 0x80)),
        (&[0x0f, 0x01, 0x8c, 0x4f, 0xf0, 0xff, 0xff, 0xff], CodeSize::Bits64, (Idtr, false, 0x1385_8101, !0xf)),
        (&[0x0f, 0x01, 0x1d, 0x10, 0, 0, 0], CodeSize::Bits64, (Idtr, true, 0x3841_8100, 0x10 + 7)),
        (&[0x0f, 0x00, 0xc0], CodeSize::Bits64, (Ldtr, false, 0x400, 0)),
        (&[0x0f, 0x00, 0xd1], CodeSize::Bits64, (Ldtr, true, 0x2000_0408, 0)),
        (&[0x0f, 0x00, 0x4f, 0x22], CodeSize::Bits64, (Tr, false, 0x13c1_8100, 0x22)),
        (&[0x0f, 0x01, 0x10], CodeSize::Bits32, (Gdtr, true, 0x2041_8880, 0)),
    ];
    for (bytes, code, due) in cases {
        let Special::Descriptor(found) = recipe(bytes, code).special else { panic!("{bytes:x?}") };
        let page = if found.is_relative { 0x50 } else { 0 };
        let displacement = found.displacement.wrapping_sub(page);
        assert_eq!((found.table, found.is_load, found.information, displacement), due, "{bytes:x?}");
    }
}

#[test]
fn a_port_is_told_by_its_number_its_width_and_its_direction() {
    let port = |bytes: &[u8]| {
        let Special::Port(port) = recipe(bytes, CodeSize::Bits64).special else { panic!("{bytes:x?}") };
        (port.port, port.bytes, port.is_read, port.is_string)
    };
    assert_eq!(port(&[0xe4, 0x60]), (Some(0x60), 1, true, false));
    assert_eq!(port(&[0x66, 0xe7, 0x61]), (Some(0x61), 2, false, false));
    assert_eq!(port(&[0xed]), (None, 4, true, false));
    assert_eq!(port(&[0xee]), (None, 1, false, false));
    assert_eq!(port(&[0xf3, 0x6d]), (None, 4, true, true));
    assert_eq!(port(&[0x66, 0x6f]), (None, 2, false, true));
}
