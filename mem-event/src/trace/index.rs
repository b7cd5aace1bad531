//! Where the blocks of a trace are.

use bincode::{Decode, Encode};

/// Where to begin to read. Not every block of steps is listed: from one on they follow each other. Of several with the same number of
/// steps before them (of which all but the last hold remarks alone) the first is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Index {
    /// Steps in the trace.
    pub steps: u64,
    /// Blocks of steps, in order.
    pub blocks: Vec<BlockAt>,
    /// States, in order.
    pub states: Vec<StateAt>,
}

/// A block of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlockAt {
    /// Steps before its first.
    pub before: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// The time of the last step before it; nanoseconds.
    pub time: u64,
}

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StateAt {
    /// Steps that led to it.
    pub steps: u64,
    /// Where its block begins in the file.
    pub offset: u64,
}

impl Index {
    /// Whether the blocks and states come in order and before the index, which begins at `end`.
    pub(super) fn is_possible(&self, end: u64) -> bool {
        let blocks = self.blocks.is_sorted_by(|a, b| a.before < b.before && a.offset < b.offset && a.time <= b.time);
        let states = self.states.is_sorted_by(|a, b| a.steps < b.steps && a.offset < b.offset);
        let begins = self.blocks.first().map_or(self.steps == 0, |block| block.before == 0);
        blocks
            && states
            && begins
            && self.blocks.last().is_none_or(|block| block.before <= self.steps && block.offset < end)
            && self.states.last().is_none_or(|state| state.steps <= self.steps && state.offset < end)
    }

    /// Where to begin to read for a step, from 1.
    pub(super) fn block_of(&self, step: u64) -> Option<BlockAt> {
        let after = self.blocks.partition_point(|block| block.before < step);
        self.blocks[..after].last().copied()
    }

    /// The states that no more than so many steps led to, the last one first.
    pub(super) fn states_before(&self, steps: u64) -> impl Iterator<Item = StateAt> {
        let after = self.states.partition_point(|state| state.steps <= steps);
        self.states[..after].iter().rev().copied()
    }
}
