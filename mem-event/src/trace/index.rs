//! Where the blocks of a trace are: at its end after an ordered one, else found by reading all of it.

use super::codec::{self, StepsHead};
use super::reader::{Block, Blocks};
use super::{End, TAIL, TAIL_MAGIC, Why};
use bincode::{Decode, Encode};
use std::io::{Read, Seek, SeekFrom};

/// Where to begin to read. Not every block of steps is listed: from one on they follow each other.
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
    /// The index at the file's end, and where its block begins; `None` where there is none that can be believed.
    pub(super) fn at_the_end<R: Read + Seek>(file: &mut R) -> Option<(Index, u64)> {
        let size = file.seek(SeekFrom::End(0)).ok()?;
        file.seek(SeekFrom::Start(size.checked_sub(TAIL as u64)?)).ok()?;
        let mut tail = [0; TAIL];
        file.read_exact(&mut tail).ok()?;
        let (offset, magic) = tail.split_first_chunk()?;
        let offset = u64::from_le_bytes(*offset);
        if magic != TAIL_MAGIC || offset >= size {
            return None;
        }
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut payload = Vec::new();
        let block = Blocks::new(file, offset).next(&mut payload).ok()?;
        let index = codec::index(&payload).ok()?;
        let ends = block.end() + TAIL as u64 == size;
        (ends && index.is_possible(offset)).then_some((index, offset))
    }

    /// The index of all that can be read, and where and why no more.
    ///
    /// # Errors
    /// The file cannot be read at all.
    pub(super) fn by_reading<R: Read + Seek>(file: &mut R, first: u64) -> Result<(Index, End), End> {
        let fail = |error: std::io::Error| End { offset: first, steps: 0, why: Why::Unreadable(error.to_string()) };
        file.seek(SeekFrom::Start(first)).map_err(fail)?;
        let (mut blocks, mut payload, mut index) = (Blocks::new(file, first), Vec::new(), Index::default());
        loop {
            let at = blocks.offset();
            let why = match blocks.next(&mut payload) {
                Ok(block) => match index.add(block, &payload) {
                    Ok(true) => continue,
                    Ok(false) => blocks.after_the_index(at),
                    Err(why) => Why::Content(why),
                },
                Err(why) => why,
            };
            return Ok((index.clone(), End { offset: at, steps: index.steps, why }));
        }
    }

    fn add(&mut self, block: Block, payload: &[u8]) -> Result<bool, String> {
        match payload.first() {
            Some(&super::KIND_STEPS) => {
                let StepsHead { before, count, time } = codec::steps_head(payload)?;
                if before != self.steps || count == 0 {
                    let here = self.steps;
                    return Err(format!("{count} steps from {} on, where {here} were read", before.saturating_add(1)));
                }
                self.blocks.push(BlockAt { before, offset: block.offset, time });
                self.steps += u64::from(count);
                Ok(true)
            }
            Some(&super::KIND_STATE) => {
                self.states.push(StateAt { steps: self.steps, offset: block.offset });
                Ok(true)
            }
            Some(&super::KIND_INDEX) => Ok(false),
            kind => Err(format!("a block of kind {kind:?}")),
        }
    }

    fn is_possible(&self, end: u64) -> bool {
        let blocks = self.blocks.is_sorted_by(|a, b| a.before < b.before && a.offset < b.offset && a.time <= b.time);
        let states = self.states.is_sorted_by(|a, b| a.steps < b.steps && a.offset < b.offset);
        let begins = self.blocks.first().map_or(self.steps == 0, |block| block.before == 0);
        blocks
            && states
            && begins
            && self.blocks.last().is_none_or(|block| block.before < self.steps && block.offset < end)
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
