//! Where a block begins whose fetch is checked, as the translation leaves it for the run.

use crate::insn::recipe::Recipe;
use mem_event::Gfn;

/// The start of a block.
#[derive(Clone, Debug)]
pub struct BlockStart {
    /// The recipe of its first instruction's fetch.
    pub fetch: Recipe,
    /// The frame that QEMU read it from, if it is RAM: the block runs for no other.
    pub frame: Option<Gfn>,
    /// The fetch of the next page, where the first instruction reaches into it. No other does: QEMU ends the block before.
    pub next: Option<Recipe>,
}
