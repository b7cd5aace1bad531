//! What MPX's instructions touch: nothing while bounds are off, else `bndmov` its operand, and `bndldx` and `bndstx` two tables of
//! the guest's, by the address of a pointer.
//!
//! The directory's base is taken as QEMU takes it in 64-bit code, from bit 20 of BNDCFGS or BNDCFGU on, where the manual says bit 12.

use crate::insn::recipe::{Bound, Extra, Operand};
use crate::insn::registers::{CodeSize, Registers};
use iced_x86::{Instruction, OpKind};
use mem_event::Rights;

/// The operand of `bndmov`.
pub fn moved(instruction: &Instruction, operand: Operand) -> Vec<Operand> {
    let rights = if instruction.op0_kind() == OpKind::Memory { Rights::W } else { Rights::R };
    vec![Operand { extra: Extra::Bound(Bound::Itself), rights, ..operand }]
}

/// Those of `bndldx` and `bndstx`, from the place of the pointer: the directory's entry is read, the table's is read or written.
pub fn looked_up(code: CodeSize, pointer: Operand, rights: Rights) -> Vec<Operand> {
    let (word, bytes) = if code == CodeSize::Bits64 { (8, 24) } else { (4, 12) };
    let part = |bound, size, rights| Operand { extra: Extra::Bound(bound), size, rights, ..pointer };
    vec![part(Bound::Directory(code), word, Rights::R), part(Bound::Table(code), bytes, rights)]
}

impl Bound {
    /// Where it is; nothing where bounds are off, or where a table is not there. A table's place that cannot be read is supposed to be at
    /// the directory's entry.
    pub fn address(self, registers: &impl Registers, pointer: u64) -> Option<u64> {
        let base = registers.bound_directory()?;
        let entry = |code| match code {
            CodeSize::Bits64 => (pointer >> 20 & 0xfff_ffff) << 3,
            _ => (pointer >> 12 & 0xf_ffff) << 2,
        };
        let directory = |code| match code {
            CodeSize::Bits64 => entry(code).wrapping_add(base >> 20 << 12),
            _ => entry(code).wrapping_add(base & 0xffff_f000) & 0xffff_ffff,
        };
        match self {
            Bound::Itself => Some(pointer),
            Bound::Directory(code) => Some(directory(code)),
            Bound::Table(code) => {
                let Some(table) = registers.quad(directory(code)) else { return Some(directory(code)) };
                let is_there = table & 1 != 0;
                is_there.then_some(match code {
                    CodeSize::Bits64 => ((pointer >> 3 & 0x1_ffff) << 5).wrapping_add(table & !7),
                    _ => ((pointer >> 2 & 0x3ff) << 4).wrapping_add(table & 0xffff_fffc) & 0xffff_ffff,
                })
            }
        }
    }
}
