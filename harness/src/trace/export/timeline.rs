//! What the exports of waits are made of.

use crate::guest::symbols::Symbols;
use crate::trace::story::{Level, Story};
use mem_event::trace::Header;

/// A trace's waits and exchanges.
#[derive(Debug)]
pub struct Timeline {
    /// The trace's header.
    pub header: Header,
    /// Its symbols.
    pub symbols: Symbols,
    /// Steps that were read.
    pub steps: u64,
    /// The time of the first and the last of them.
    pub span: (u64, u64),
    /// Waits and exchanges.
    pub story: Story,
    /// How things stood, wherever it changed.
    pub levels: Vec<Level>,
}
