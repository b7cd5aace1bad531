//! The quick form of a recipe: one memory operand of 64-bit code, as arithmetic without branches.
//!
//! Nine in ten memory instructions are of this form. One branch predictor entry serves them all, so a branch on the operand's
//! shape would be mispredicted most of the time; masks are not.

use crate::cache::{Half, PageCache};
use crate::recipe::{Extra, NONE, Operand, Recipe};
use crate::registers::CodeSize;
use mem_event::Rights;

/// Where a register is found in the CPU state.
pub trait Layout {
    /// Bytes from the state's start to a general register.
    fn general(number: u8) -> u16;
    /// Bytes to a segment's base.
    fn segment_base(number: u8) -> u16;
    /// Bytes to the instruction pointer.
    const INSTRUCTION_POINTER: u16;
}

/// One operand as sums of masked numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quick {
    displacement: u64,
    base_mask: u64,
    index_mask: u64,
    segment_mask: u64,
    page_mask: u64,
    offset_mask: u64,
    base: u16,
    index: u16,
    segment: u16,
    scale: u8,
    half: Half,
    /// The largest offset in a page at which the operand does not reach the next one.
    fits: u16,
}

impl Quick {
    /// The quick form, if the recipe has one.
    pub fn of<L: Layout>(recipe: &Recipe) -> Option<Quick> {
        let [operand] = &recipe.operands[..] else { return None };
        let relative = match operand.extra {
            Extra::Plain => false,
            Extra::PageRelative => true,
            _ => return None,
        };
        if recipe.code != CodeSize::Bits64 || recipe.repeat.is_some() || recipe.flushes {
            return None;
        }
        Some(Quick {
            displacement: operand.displacement,
            base_mask: used(operand.base),
            index_mask: used(operand.index),
            segment_mask: used(operand.segment),
            page_mask: if relative { !0xfff } else { 0 },
            offset_mask: operand.offset_mask,
            base: if operand.base == NONE { 0 } else { L::general(operand.base) },
            index: if operand.index == NONE { 0 } else { L::general(operand.index) },
            segment: if operand.segment == NONE { 0 } else { L::segment_base(operand.segment) },
            scale: operand.scale & 3,
            half: half(operand),
            fits: 0x1000 - operand.size,
        })
    }

    /// Whether the cache allows the operand, whose registers `load` reads at offsets into the CPU state.
    #[inline(always)]
    pub fn is_allowed<L: Layout>(&self, cache: &PageCache, load: impl Fn(u16) -> u64) -> bool {
        let offset = self
            .displacement
            .wrapping_add(load(self.base) & self.base_mask)
            .wrapping_add((load(self.index) & self.index_mask) << self.scale)
            .wrapping_add(load(L::INSTRUCTION_POINTER) & self.page_mask);
        let gla = (offset & self.offset_mask).wrapping_add(load(self.segment) & self.segment_mask);
        cache.allows(gla, self.half) & (gla & 0xfff <= u64::from(self.fits))
    }
}

fn used(register: u8) -> u64 {
    if register == NONE { 0 } else { u64::MAX }
}

fn half(operand: &Operand) -> Half {
    if operand.rights.contains(Rights::W) { Half::Write } else { Half::Read }
}
