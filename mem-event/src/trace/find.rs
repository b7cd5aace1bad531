//! Finds the blocks of a trace: by the index at its end after an ordered one, else by reading all of it.

use super::codec::{self, StepsHead};
use super::index::{BlockAt, Index, StateAt};
use super::reader::{Block, Blocks};
use super::{End, TAIL, TAIL_MAGIC, Why};
use std::io::{Read, Seek, SeekFrom};

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
            Ok(block) => match add(&mut index, block, &payload) {
                Ok(true) => continue,
                Ok(false) => blocks.after_the_index(at),
                Err(why) => Why::Content(why),
            },
            Err(why) => why,
        };
        return Ok((index.clone(), End { offset: at, steps: index.steps, why }));
    }
}

/// Adds a block; false for the index itindex.
fn add(index: &mut Index, block: Block, payload: &[u8]) -> Result<bool, String> {
    match payload.first() {
        Some(&super::KIND_STEPS) => {
            let StepsHead { before, count, time, .. } = codec::steps_head(payload)?;
            if before != index.steps {
                let here = index.steps;
                return Err(format!("{count} steps from {} on, where {here} were read", before.saturating_add(1)));
            }
            if index.blocks.last().is_none_or(|last| last.before < before) {
                index.blocks.push(BlockAt { before, offset: block.offset, time });
            }
            index.steps += u64::from(count);
            Ok(true)
        }
        Some(&super::KIND_STATE) => {
            index.states.push(StateAt { steps: index.steps, offset: block.offset });
            Ok(true)
        }
        Some(&super::KIND_INDEX) => Ok(false),
        Some(kind) => Err(format!("a block of unknown kind {kind}")),
        None => Err("an empty block".to_owned()),
    }
}
