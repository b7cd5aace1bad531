//! From an instruction's bytes to its recipe, by iced-x86's list of the memory that an instruction uses.

use crate::insn::bounds;
use crate::insn::descriptor;
use crate::insn::dialect;
use crate::insn::elements::Elements;
use crate::insn::far::Far;
use crate::insn::nested::ControlBlock;
use crate::insn::recipe::{Extra, NONE, Operand, PAGE, Recipe, Repeat, linear_mask};
use crate::insn::registers::{CodeSize, segment};
use crate::insn::special::{ControlSource, PortAccess, Special};
use crate::insn::state;
use iced_x86::{
    Code, CodeSize as AddressSize, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedMemory,
};
use mem_event::{CpuEventKind, Rights};

/// What iced-x86 knows only if it is told, and QEMU does: MPX.
pub const OPTIONS: u32 = DecoderOptions::MPX;

/// The displacement that marks a checkpoint: `nopl 0x454d454d(%rax)`.
pub const CHECKPOINT: u32 = 0x454d_454d;

/// The bytes of a checkpoint in 64-bit code.
const CHECKPOINT_BYTES: [u8; 7] = [0x0f, 0x1f, 0x80, 0x4d, 0x45, 0x4d, 0x45];

/// How many there are.
pub const CHECKPOINT_LENGTH: usize = CHECKPOINT_BYTES.len();

/// Whether these bytes are a guest's checkpoint.
pub fn is_checkpoint(bytes: &[u8]) -> bool {
    bytes == CHECKPOINT_BYTES
}

/// Whether these bytes are of an instruction that uses a control block (`vmrun`, `vmload`, `vmsave`).
pub fn uses_control_block(bytes: &[u8]) -> bool {
    matches!(bytes, [.., 0x0f, 0x01, 0xd8 | 0xda | 0xdb])
}

/// What decoding an instruction found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// It touches no memory that can be foreseen, changes no translation, and nobody is told of it.
    Nothing,
    /// It touches this.
    Touches(Recipe),
    /// It touches memory that cannot be foreseen from the general registers (a gather or scatter), and its name.
    Unforeseen(String),
}

/// Decodes instructions; keeps iced-x86's tables.
pub struct InstructionReader {
    factory: InstructionInfoFactory,
}

impl Default for InstructionReader {
    fn default() -> InstructionReader {
        InstructionReader { factory: InstructionInfoFactory::new() }
    }
}

impl std::fmt::Debug for InstructionReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InstructionReader")
    }
}

impl InstructionReader {
    /// Decodes one instruction at an address of which only the low 12 bits are used.
    pub fn read(&mut self, bytes: &[u8], address: u64, code: CodeSize) -> Decoded {
        let bits = u32::from(code.bits());
        let bytes = if bits == 64 { &dialect::in_order(bytes) } else { bytes };
        let page_offset = (address & 0xfff) as u16;
        let mut decoder = Decoder::with_ip(bits, bytes, u64::from(page_offset), OPTIONS);
        let instruction = decoder.decode();
        if instruction.is_invalid() || dialect::is_unknown(&instruction) {
            return Decoded::Nothing;
        }
        let used: Vec<UsedMemory> = self.factory.info(&instruction).used_memory().to_vec();
        let operands = in_parts(&instruction, &used, code).or_else(|| operands(&instruction, &used, code));
        let Some(mut operands) = operands else {
            return Decoded::Unforeseen(format!("{:?}", instruction.mnemonic()).to_lowercase());
        };
        let special = special(&instruction);
        if operands.is_empty() && special == Special::Nothing {
            return Decoded::Nothing;
        }
        in_order_of_touch(&instruction, &mut operands);
        far(&instruction, code, &mut operands);
        Decoded::Touches(Recipe {
            page_offset,
            code,
            length: u8::try_from(instruction.len()).unwrap_or(15),
            special,
            repeat: repeat(&instruction, &used, code),
            operands: operands.into(),
        })
    }
}

/// The operands of an instruction whose registers, or what it reads, say which parts of its memory it touches; `None` for others.
fn in_parts(instruction: &Instruction, used: &[UsedMemory], code: CodeSize) -> Option<Vec<Operand>> {
    let area = || operand(instruction, used.first()?, Rights::NONE, code);
    match instruction.mnemonic() {
        Mnemonic::Bndmov => Some(bounds::moved(instruction, area()?)),
        Mnemonic::Bndldx => Some(bounds::looked_up(code, pointer(instruction, code)?, Rights::R)),
        Mnemonic::Bndstx => Some(bounds::looked_up(code, pointer(instruction, code)?, Rights::W)),
        mnemonic => Some(state::operands(mnemonic, code, area()?, state::of(mnemonic)?)),
    }
}

/// What MPX's tables are asked for: the place of a pointer, which has no index, and which iced-x86 does not count as memory.
fn pointer(instruction: &Instruction, code: CodeSize) -> Option<Operand> {
    Some(Operand {
        displacement: instruction.memory_displacement64(),
        size: 1,
        base: number(instruction.memory_base())?,
        index: NONE,
        scale: 0,
        segment: segment_number(instruction.memory_segment(), code),
        extra: Extra::Plain,
        offset_mask: linear_mask(code),
        linear_mask: linear_mask(code),
        rights: Rights::NONE,
    })
}

/// One operand for each memory that is used, or one for each of its elements; `None` where one cannot be foreseen.
fn operands(instruction: &Instruction, used: &[UsedMemory], code: CodeSize) -> Option<Vec<Operand>> {
    let mut operands = Vec::with_capacity(used.len());
    // A control block is no operand: its address is physical.
    let is_control_block = matches!(special(instruction), Special::ControlBlock(_));
    for memory in used.iter().filter(|_| !is_control_block) {
        let Some(rights) = rights_of(memory.access()) else { continue };
        let operand = operand(instruction, memory, rights, code)?;
        match Elements::of(instruction, memory) {
            None => operands.push(operand),
            Some(elements) => operands.extend(elements?.operands(operand)),
        }
    }
    Some(operands)
}

fn rights_of(access: OpAccess) -> Option<Rights> {
    match access {
        OpAccess::None | OpAccess::NoMemAccess => None,
        OpAccess::Read | OpAccess::CondRead => Some(Rights::R),
        OpAccess::Write | OpAccess::CondWrite => Some(Rights::W),
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => Some(Rights::RW),
    }
}

/// Reads come before writes where an instruction has both (a `push` from memory, a `movs`).
fn in_order_of_touch(instruction: &Instruction, operands: &mut [Operand]) {
    if !matches!(instruction.mnemonic(), Mnemonic::Enter) && state::of(instruction.mnemonic()).is_none() {
        operands.sort_by_key(|operand| operand.rights == Rights::W);
    }
}

fn operand(instruction: &Instruction, memory: &UsedMemory, rights: Rights, code: CodeSize) -> Option<Operand> {
    let (extra, index) = match memory.index() {
        Register::AL => (Extra::AddAl, NONE),
        // Left to the elements.
        register if register.is_vector_register() => (Extra::Plain, NONE),
        Register::None if code != CodeSize::Bits64 && is_stack(instruction, memory) => (Extra::Stack, NONE),
        _ if dialect::is_for_the_kernel(instruction.mnemonic()) => (Extra::Kernel, number(memory.index())?),
        register => (bit_offset(instruction, memory), number(register)?),
    };
    let base = if is_page_relative(instruction, memory) { PAGE } else { number(memory.base())? };
    Some(Operand {
        displacement: if extra == Extra::Stack { signed(memory) } else { memory.displacement() },
        size: size(instruction, memory, code),
        base,
        index,
        scale: log2(memory.scale() as usize),
        segment: segment_number(memory.segment(), code),
        extra,
        offset_mask: mask(memory.address_size()),
        linear_mask: linear_mask(code),
        rights,
    })
}

/// A displacement is cut to the address size; the stack's may be wider, so that it matters that a push goes down.
fn signed(memory: &UsedMemory) -> u64 {
    let unused = mask(memory.address_size()).leading_zeros();
    (memory.displacement() << unused).cast_signed().wrapping_shr(unused).cast_unsigned()
}

/// Of a power of two up to 64.
fn log2(power: usize) -> u8 {
    u8::try_from(power.trailing_zeros()).unwrap_or(0)
}

/// A general register's number, [`NONE`] for no register, nothing for a vector register.
fn number(register: Register) -> Option<u8> {
    if register == Register::None {
        return Some(NONE);
    }
    let full = register.full_register();
    if full.is_gpr64() { u8::try_from(full.number()).ok() } else { None }
}

/// Only the explicit operand can be relative to the instruction pointer.
fn is_page_relative(instruction: &Instruction, memory: &UsedMemory) -> bool {
    instruction.is_ip_rel_memory_operand()
        && memory.index() == Register::None
        && (memory.base() == Register::RIP
            || memory.base() == Register::EIP
            || memory.base() == Register::None && memory.displacement() == instruction.ip_rel_memory_address())
}

/// Whether it is what an instruction does on the stack by itself, and not its explicit operand.
fn is_stack(instruction: &Instruction, memory: &UsedMemory) -> bool {
    // Beside an explicit operand, which may be by the stack pointer too, `pop` reads the stack, `push` and `call` write it.
    let has_explicit = (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory);
    let own = if instruction.mnemonic() == Mnemonic::Pop { OpAccess::Read } else { OpAccess::Write };
    let by_stack = matches!(memory.base().full_register(), Register::RSP | Register::RBP);
    instruction.is_stack_instruction() && by_stack && (!has_explicit || memory.access() == own)
}

fn segment_number(register: Register, code: CodeSize) -> u8 {
    match register {
        Register::FS => segment::FS,
        Register::GS => segment::GS,
        _ if code == CodeSize::Bits64 => NONE,
        Register::ES => segment::ES,
        Register::CS => segment::CS,
        Register::SS => segment::SS,
        Register::DS => segment::DS,
        _ => NONE,
    }
}

fn mask(size: AddressSize) -> u64 {
    match size {
        AddressSize::Code16 => 0xffff,
        AddressSize::Code32 => u64::from(u32::MAX),
        AddressSize::Code64 | AddressSize::Unknown => u64::MAX,
    }
}

/// How many bytes an operand has.
fn size(instruction: &Instruction, memory: &UsedMemory, code: CodeSize) -> u16 {
    // Of a repeated instruction iced-x86 leaves the size open, since it depends on the count; the element's is meant here.
    let size = match memory.memory_size().size() {
        // QEMU pushes two bytes then, and reads eight for them.
        _ if code == CodeSize::Bits64 && instruction.code() == Code::Push_rm16 && !is_stack(instruction, memory) => 8,
        0 if instruction.is_string_instruction() => instruction.memory_size().size(),
        _ if dialect::reads_whole_register(instruction.mnemonic()) => instruction.op0_register().size(),
        size if code == CodeSize::Bits16 => dialect::size_in_16_bit_code(instruction.code()).unwrap_or(size),
        size => size,
    };
    u16::try_from(size).unwrap_or(4096).clamp(1, 4096)
}

/// `bt m, r` and its kin reach beyond their operand by the bit number in the register.
fn bit_offset(instruction: &Instruction, memory: &UsedMemory) -> Extra {
    let moves = matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && instruction.op0_kind() == OpKind::Memory
        && instruction.op1_kind() == OpKind::Register;
    match (moves, number(instruction.op1_register())) {
        (true, Some(register)) if register != NONE => {
            Extra::BitOffset { register, shift: 3 + log2(memory.memory_size().size()) }
        }
        _ => Extra::Plain,
    }
}

fn repeat(instruction: &Instruction, used: &[UsedMemory], code: CodeSize) -> Option<Repeat> {
    if !instruction.is_string_instruction() || !(instruction.has_rep_prefix() || instruction.has_repne_prefix()) {
        return None;
    }
    let memory = used.first()?;
    Some(Repeat {
        element: size(instruction, memory, code),
        count_mask: mask(memory.address_size()),
        conditional: matches!(
            instruction.mnemonic(),
            Mnemonic::Cmpsb
                | Mnemonic::Cmpsw
                | Mnemonic::Cmpsd
                | Mnemonic::Cmpsq
                | Mnemonic::Scasb
                | Mnemonic::Scasw
                | Mnemonic::Scasd
                | Mnemonic::Scasq
        ),
    })
}

fn number_of(register: Register) -> u8 {
    u8::try_from(register.number()).unwrap_or(0)
}

/// How `vmrun`, `vmload` or `vmsave` uses the block that RAX points to, or EAX: QEMU takes no less.
fn control_block(instruction: &Instruction, rights: Rights) -> Special {
    let is_wide = matches!(instruction.code(), Code::Vmrunq | Code::Vmloadq | Code::Vmsaveq);
    let address_mask = if is_wide { u64::MAX } else { u64::from(u32::MAX) };
    Special::ControlBlock(ControlBlock { address_mask, rights, enters: instruction.mnemonic() == Mnemonic::Vmrun })
}

/// Adds, or puts in place of what is pushed, what is touched of stacks that may be another privilege level's.
fn far(instruction: &Instruction, code: CodeSize, operands: &mut Vec<Operand>) {
    let word: u16 = match instruction.code() {
        Code::Retfw | Code::Retfw_imm16 | Code::Iretw | Code::Call_ptr1616 | Code::Call_m1616 => 2,
        Code::Retfd | Code::Retfd_imm16 | Code::Iretd | Code::Call_ptr1632 | Code::Call_m1632 => 4,
        Code::Retfq | Code::Retfq_imm16 | Code::Call_m1664 => 8,
        // In 64-bit code `iret` takes the stack's pointer whatever the level: that is foreseen.
        _ => return,
    };
    let on_stack = |tells: u16, words: u16, far| Operand {
        displacement: tells.into(),
        size: words * word,
        base: 4,
        index: NONE,
        scale: 0,
        segment: segment_number(Register::SS, code),
        extra: Extra::Far(far),
        offset_mask: u64::MAX,
        linear_mask: linear_mask(code),
        rights: Rights::R,
    };
    match instruction.mnemonic() {
        Mnemonic::Retf => {
            let passed = if instruction.op_count() == 1 { instruction.immediate16() } else { 0 };
            operands.push(on_stack(word, 2, Far::OuterStack(2 * word + passed)));
        }
        Mnemonic::Iret | Mnemonic::Iretd if code != CodeSize::Bits64 => {
            operands.push(on_stack(word, 2, Far::OuterStack(3 * word)));
            if word == 4 {
                operands.push(on_stack(2 * word, 6, Far::Virtual(3 * word)));
            }
        }
        Mnemonic::Call => {
            // What is left is where the pointer is read.
            operands.retain(|operand| operand.rights == Rights::R);
            let named = operands.is_empty().then(|| instruction.far_branch_selector());
            let pointer = operands.first().copied();
            let tells = pointer.map_or_else(
                || Operand { base: NONE, segment: NONE, ..on_stack(0, 2, Far::Copied(named)) },
                |pointer| Operand { displacement: pointer.displacement.wrapping_add(word.into()), ..pointer },
            );
            let part = |far, rights| Operand { size: 2 * word, extra: Extra::Far(far), rights, ..tells };
            operands.push(part(Far::Copied(named), Rights::R));
            operands.push(part(Far::Pushed(named), Rights::W));
        }
        _ => {}
    }
}

fn special(instruction: &Instruction) -> Special {
    match instruction.mnemonic() {
        Mnemonic::Invlpg | Mnemonic::Invpcid => Special::Translation,
        Mnemonic::Clts => Special::WriteControl(0, ControlSource::TaskSwitchedCleared),
        Mnemonic::Lmsw if instruction.op0_kind() == OpKind::Register => {
            Special::WriteControl(0, ControlSource::MachineStatus(number_of(instruction.op0_register())))
        }
        Mnemonic::Lmsw => Special::WriteControl(0, ControlSource::MachineStatusInMemory),
        Mnemonic::Call if instruction.is_call_far() || instruction.is_call_far_indirect() => Special::CallFar,
        Mnemonic::Wrmsr => Special::WriteMsr,
        Mnemonic::Vmrun | Mnemonic::Vmload => control_block(instruction, Rights::R),
        Mnemonic::Vmsave => control_block(instruction, Rights::W),
        Mnemonic::Int3 => Special::Trap(CpuEventKind::Int3),
        Mnemonic::Int1 => Special::Trap(CpuEventKind::Debug),
        Mnemonic::Cpuid => Special::Cpuid,
        Mnemonic::Xsetbv => Special::WriteExtended,
        Mnemonic::Vmcall | Mnemonic::Vmmcall => Special::Hypercall,
        Mnemonic::Mov if matches!(instruction.code(), Code::Mov_cr_r32 | Code::Mov_cr_r64) => {
            let source = ControlSource::General(number_of(instruction.op1_register()));
            Special::WriteControl(number_of(instruction.op0_register()), source)
        }
        _ => port(instruction)
            .map(Special::Port)
            .or_else(|| descriptor::access(instruction).map(Special::Descriptor))
            .unwrap_or(Special::Nothing),
    }
}

fn port(instruction: &Instruction) -> Option<PortAccess> {
    let is_read = match instruction.mnemonic() {
        Mnemonic::In | Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd => true,
        Mnemonic::Out | Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd => false,
        _ => return None,
    };
    let is_string = instruction.is_string_instruction();
    let names_it = (0..2).any(|number| instruction.op_kind(number) == OpKind::Immediate8);
    let bytes = match (is_string, is_read) {
        (true, _) => instruction.memory_size().size(),
        (false, true) => instruction.op0_register().size(),
        (false, false) => instruction.op1_register().size(),
    };
    let (port, bytes) = (names_it.then(|| instruction.immediate8()), u8::try_from(bytes).unwrap_or(1));
    Some(PortAccess { port, bytes, is_read, is_string })
}
