//! Instructions that touch memory element by element, as vector registers say: gathers and masked moves.
//!
//! Each element is an operand of its own, which is touched only where the sign bit of its mask's element is set. A masked load is
//! none of these: QEMU reads the whole operand, where hardware reads the elements of the mask. Scatters, and
//! masks in registers of their own, came with AVX-512, which QEMU's TCG does not have.

use crate::insn::recipe::{Element, Extra, Operand};
use crate::insn::registers::Registers;
use iced_x86::{EncodingKind, Instruction, Mnemonic, OpAccess, Register, UsedMemory};

/// What the elements of an instruction have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    /// How many.
    count: u8,
    /// The first one.
    first: Element,
}

impl Elements {
    /// Whether, and how, a memory operand is touched by elements; the inner `None` is one that cannot be foreseen.
    pub fn of(instruction: &Instruction, memory: &UsedMemory) -> Option<Option<Elements>> {
        if memory.index().is_vector_register() {
            return Some(Elements::gathered(instruction, memory));
        }
        if !matches!(memory.access(), OpAccess::Write | OpAccess::CondWrite) {
            // Of a masked load QEMU reads the whole.
            return None;
        }
        let (mask, bytes) = match instruction.mnemonic() {
            Mnemonic::Maskmovdqu | Mnemonic::Vmaskmovdqu => (instruction.op2_register(), 1),
            Mnemonic::Vmaskmovps | Mnemonic::Vpmaskmovd => (instruction.op1_register(), 4),
            Mnemonic::Vmaskmovpd | Mnemonic::Vpmaskmovq => (instruction.op1_register(), 8),
            _ => return None,
        };
        let count = u8::try_from(mask.size()).unwrap_or(0) / bytes;
        Some(number(mask).map(|mask| Elements { count, first: Element { number: 0, bytes, mask, index: None } }))
    }

    fn gathered(instruction: &Instruction, memory: &UsedMemory) -> Option<Elements> {
        if instruction.encoding() != EncodingKind::VEX {
            return None;
        }
        let mask = instruction.op2_register();
        let bytes = u8::try_from(memory.memory_size().size()).ok()?;
        let index_bytes = if instruction.is_vsib64() { 8 } else { 4 };
        let fit = |register: Register, bytes: u8| u8::try_from(register.size()).ok().map(|size| size / bytes.max(1));
        let count = fit(mask, bytes)?.min(fit(memory.index(), index_bytes)?);
        let index = Some((number(memory.index())?, index_bytes));
        Some(Elements { count, first: Element { number: 0, bytes, mask: number(mask)?, index } })
    }

    /// The operands, from what is common to them.
    pub fn operands(self, common: Operand) -> impl Iterator<Item = Operand> {
        (0..self.count).map(move |number| {
            let element = Element { number, ..self.first };
            // Elements that lie side by side do so here; those of a gather lie where their indices say.
            let offset = if element.index.is_none() { u64::from(number) * u64::from(element.bytes) } else { 0 };
            Operand {
                displacement: common.displacement.wrapping_add(offset),
                size: element.bytes.into(),
                extra: Extra::Element(element),
                ..common
            }
        })
    }
}

/// Of XMM or YMM.
fn number(register: Register) -> Option<u8> {
    (register.is_xmm() || register.is_ymm()).then(|| u8::try_from(register.number()).ok()).flatten()
}

impl Element {
    /// Whether it is touched: its mask's sign bit. What cannot be read counts as not touched, and is then the host's MMU's.
    pub fn is_touched(&self, registers: &impl Registers) -> bool {
        let last_bit = (usize::from(self.number) + 1) * usize::from(self.bytes) * 8 - 1;
        registers.vector(self.mask).is_some_and(|mask| mask[last_bit / 64] >> (last_bit % 64) & 1 != 0)
    }

    /// The signed index of a gathered element, before its factor.
    pub fn index(&self, registers: &impl Registers) -> u64 {
        let Some((register, bytes)) = self.index else { return 0 };
        let Some(indices) = registers.vector(register) else { return 0 };
        let at = usize::from(self.number) * usize::from(bytes);
        let quad = indices[at / 8] >> (at % 8 * 8);
        if bytes == 8 { quad } else { (quad << 32).cast_signed().wrapping_shr(32).cast_unsigned() }
    }
}
