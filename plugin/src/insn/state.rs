//! What `xsave`, `xsaveopt` and `xrstor` touch of their area: the parts that EDX:EAX and XCR0 name.
//!
//! QEMU has the standard form alone: `xsavec`, `xsaves` and `xrstors` are invalid opcodes to it, and `xrstor` of a compacted area is a
//! general protection fault.

use crate::insn::recipe::{Extra, Operand, State, When};
use crate::insn::registers::{CodeSize, Registers};
use iced_x86::Mnemonic;
use mem_event::Rights;

/// Where the header lies, of which the first word says what the area holds.
const HEADER: u16 = 512;
const RAX: u8 = 0;
const RDX: u8 = 2;

const FP: u8 = 0;
const SSE: u8 = 1;
const AVX: u8 = 2;
const BOUNDS: u8 = 3;
const BOUNDS_STATUS: u8 = 4;
const KEYS: u8 = 9;

/// Component, first byte, bytes. Of the vector registers 32-bit code has the first half. MXCSR goes with SSE, whether in use or not.
const PARTS: [(u8, u16, u16); 8] = [
    (FP, 0, 24),
    (SSE, 24, 8),
    (FP, 32, 128),
    (SSE, 160, 256),
    (AVX, 576, 256),
    (BOUNDS, 960, 64),
    (BOUNDS_STATUS, 1024, 16),
    (KEYS, 2688, 8),
];
/// In `PARTS`.
const MXCSR: usize = 1;

/// What such an instruction does with its area; nothing for other instructions.
pub fn of(mnemonic: Mnemonic) -> Option<Rights> {
    match mnemonic {
        Mnemonic::Xsave | Mnemonic::Xsave64 | Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => Some(Rights::W),
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => Some(Rights::R),
        _ => None,
    }
}

/// The operands in the order in which they are touched, from the area as one operand.
pub fn operands(mnemonic: Mnemonic, code: CodeSize, area: Operand, rights: Rights) -> Vec<Operand> {
    let when = match mnemonic {
        Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => When::InUse,
        _ if rights == Rights::R => When::There,
        _ => When::Asked,
    };
    let part = |(number, (component, first, bytes)): (usize, (u8, u16, u16))| {
        let halved = code != CodeSize::Bits64 && (component == AVX || component == SSE && number != MXCSR);
        let when = if number == MXCSR { When::Asked } else { when };
        let extra = Extra::State(State { component, when, first });
        let size = if halved { bytes / 2 } else { bytes };
        Operand { displacement: area.displacement.wrapping_add(first.into()), size, extra, rights, ..area }
    };
    let parts = PARTS.into_iter().enumerate().map(part);
    let displacement = area.displacement.wrapping_add(HEADER.into());
    let header = |size, rights| Operand { displacement, size, rights, ..area };
    if rights == Rights::R {
        std::iter::once(header(24, Rights::R)).chain(parts).collect()
    } else {
        parts.chain([header(8, Rights::RW)]).collect()
    }
}

impl State {
    /// Whether the part at this linear address is touched. What memory says and cannot be had counts as yes.
    pub fn is_touched(self, registers: &impl Registers, gla: u64) -> bool {
        let low = |number| registers.general(number) & 0xffff_ffff;
        let asked = (low(RDX) << 32 | low(RAX)) & registers.enabled_state();
        let there = match self.when {
            When::Asked => !0,
            When::InUse => registers.state_in_use(),
            When::There => {
                registers.quad(gla.wrapping_sub(self.first.into()).wrapping_add(HEADER.into())).unwrap_or(!0)
            }
        };
        asked & there & 1 << self.component != 0
    }
}
