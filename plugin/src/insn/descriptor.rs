//! Instructions that store or load the register of a descriptor table or the task's, as Intel's processors describe them to a hypervisor (the
//! VM-exit instruction-information field, and the displacement in the exit qualification).

use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use mem_event::DescriptorTable;

/// What such an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorAccess {
    /// The table whose register it is.
    pub table: DescriptorTable,
    /// It is loaded.
    pub is_load: bool,
    /// The VM-exit instruction-information field.
    pub information: u32,
    /// The displacement of the operand in memory; where that is relative to the instruction pointer, its place from the instruction's page on.
    pub displacement: u64,
    /// It is relative.
    pub is_relative: bool,
}

/// What it does, if it is such an instruction; it was decoded at its offset in the page.
pub fn access(instruction: &Instruction) -> Option<DescriptorAccess> {
    use DescriptorTable::{Gdtr, Idtr, Ldtr, Tr};
    // The last is what the field says of the instruction.
    let (table, is_load, identity) = match instruction.mnemonic() {
        Mnemonic::Sgdt => (Gdtr, false, 0),
        Mnemonic::Sidt => (Idtr, false, 1),
        Mnemonic::Lgdt => (Gdtr, true, 2),
        Mnemonic::Lidt => (Idtr, true, 3),
        Mnemonic::Sldt => (Ldtr, false, 0),
        Mnemonic::Str => (Tr, false, 1),
        Mnemonic::Lldt => (Ldtr, true, 2),
        Mnemonic::Ltr => (Tr, true, 3),
        _ => return None,
    };
    let is_relative = instruction.is_ip_rel_memory_operand();
    let displacement = match instruction.op0_kind() {
        OpKind::Memory if is_relative => instruction.ip_rel_memory_address(),
        OpKind::Memory => instruction.memory_displacement64(),
        _ => 0,
    };
    let operand =
        if instruction.op0_kind() == OpKind::Memory { in_memory(instruction) } else { in_register(instruction) };
    Some(DescriptorAccess { table, is_load, information: operand | identity << 28, displacement, is_relative })
}

/// Bit 10: it is a register, whose number stands above bit 3.
fn in_register(instruction: &Instruction) -> u32 {
    1 << 10 | number(instruction.op0_register()) << 3
}

/// From the lowest bit: scale, size of addresses, size of the operand, segment, index, base; an index or base that is not there has a bit.
fn in_memory(instruction: &Instruction) -> u32 {
    let scale = match instruction.memory_index() {
        Register::None => 0,
        _ => instruction.memory_index_scale().trailing_zeros(),
    };
    let is_32_bit =
        matches!(instruction.code(), Code::Sgdt_m1632 | Code::Sidt_m1632 | Code::Lgdt_m1632 | Code::Lidt_m1632);
    let segment = instruction.memory_segment() as u32 - Register::ES as u32;
    let base = if instruction.is_ip_rel_memory_operand() { Register::None } else { instruction.memory_base() };
    let register = |register: Register, at: u32| match register {
        Register::None => 1 << (at + 4),
        register => number(register) << at,
    };
    let address_size = match address_bytes(instruction) {
        2 => 0,
        4 => 1,
        _ => 2,
    };
    scale
        | address_size << 7
        | u32::from(is_32_bit) << 11
        | segment << 15
        | register(instruction.memory_index(), 18)
        | register(base, 23)
}

fn address_bytes(instruction: &Instruction) -> usize {
    let registers = [instruction.memory_base(), instruction.memory_index()];
    let named = registers.into_iter().find(|register| *register != Register::None);
    named.map_or(instruction.memory_displ_size() as usize, |register| register.size())
}

fn number(register: Register) -> u32 {
    u32::try_from(register.number()).unwrap_or(0)
}
