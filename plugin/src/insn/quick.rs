//! The quick form of a recipe: one memory operand of 64-bit code in one of six shapes.
//!
//! Nine in ten memory instructions are of this form. Each shape and each part of the page cache has a check of its own, a few
//! machine instructions in `entry::shim` without a branch on the data; which one an instruction gets is decided here, once.

use crate::insn::cache::Part;
use crate::insn::recipe::{Extra, NONE, Operand, PAGE, Recipe};
use crate::insn::registers::CodeSize;
use crate::insn::special::Special;

/// Which parts an address has, besides the displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A base register.
    Base,
    /// A base and an index register.
    BaseIndex,
    /// An index register.
    Index,
    /// The page that the code runs on.
    Page,
    /// The base of FS or GS.
    Segment,
    /// The base of FS or GS, and a base register.
    SegmentBase,
}

/// Where registers are found: bytes from the start of the CPU state.
#[derive(Clone, Copy, Debug)]
pub struct RegisterOffsets {
    /// The general registers, in encoding order.
    pub general: [u16; 16],
    /// The bases of the segment registers.
    pub segment_bases: [u16; 6],
    /// The instruction pointer.
    pub instruction_pointer: u16,
}

/// One operand. The check reads these fields; small, because the gate costs mostly the cache lines that it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Quick {
    /// Added to the registers.
    pub displacement: i32,
    /// Bytes touched, less one.
    pub last: u16,
    /// Place of the base register; of the instruction pointer where it is the page that the code runs on.
    pub base: u16,
    /// Place of the index register.
    pub index: u16,
    /// Place of the segment's base.
    pub segment: u16,
    /// log2 of the index's factor.
    pub scale: u8,
}

impl Quick {
    /// The quick form, if the recipe has one, with its shape and its part of the cache.
    pub fn of(recipe: &Recipe, offsets: &RegisterOffsets) -> Option<(Quick, Shape, Part)> {
        let [operand] = &recipe.operands[..] else { return None };
        let plain = recipe.code == CodeSize::Bits64 && recipe.repeat.is_none() && recipe.special == Special::Nothing;
        if !plain || operand.offset_mask != u64::MAX {
            return None;
        }
        let shape = shape(operand)?;
        let general = |register: u8| offsets.general.get(usize::from(register)).copied().unwrap_or(0);
        let quick = Quick {
            displacement: i32::try_from(operand.displacement.cast_signed()).ok()?,
            last: operand.size - 1,
            base: if operand.base == PAGE { offsets.instruction_pointer } else { general(operand.base) },
            index: general(operand.index),
            segment: offsets.segment_bases.get(usize::from(operand.segment)).copied().unwrap_or(0),
            scale: operand.scale & 3,
        };
        Some((quick, shape, Part::of(operand.rights)))
    }
}

/// A recipe with its quick form first; 32 bytes, so that two share a cache line.
#[derive(Debug)]
#[repr(C, align(32))]
pub struct QuickRecipe {
    /// The quick form.
    pub quick: Quick,
    /// The whole, for when the quick form does not say yes.
    pub recipe: Box<Recipe>,
}

fn shape(operand: &Operand) -> Option<Shape> {
    let is_general = |register: u8| register != NONE && register != PAGE;
    if operand.extra != Extra::Plain {
        return None;
    }
    match (operand.segment != NONE, operand.base == PAGE, is_general(operand.base), operand.index != NONE) {
        (false, false, true, false) => Some(Shape::Base),
        (false, false, true, true) => Some(Shape::BaseIndex),
        (false, false, false, true) => Some(Shape::Index),
        (false, true, false, false) => Some(Shape::Page),
        (true, false, false, false) => Some(Shape::Segment),
        (true, false, true, false) => Some(Shape::SegmentBase),
        _ => None,
    }
}
