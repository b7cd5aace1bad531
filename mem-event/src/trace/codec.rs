//! Blocks to bytes and back.

use super::values::{append, whole};
use super::{HEAD, Header, Index, KIND_STATE, KIND_STEPS, LONGEST, LONGEST_STEP};
use crate::state::Checkpoint;
use bincode::Encode;

/// No block of steps is longer: a writer ends one at a sixteenth of this, or after a long step.
const LONGEST_STEPS: usize = 2 * LONGEST_STEP;

/// The fixed part at the front of a block of steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepsHead {
    /// Steps before the block's first.
    pub before: u64,
    /// How many it holds.
    pub count: u32,
    /// How many remarks it holds.
    pub remarks: u32,
    /// The time from which the first one's is counted.
    pub time: u64,
}

/// Bytes of [`StepsHead`] and the kind before it.
pub(super) const STEPS_HEAD: usize = 25;

/// Begins a block of this kind; returns where.
pub(super) fn begin(buffer: &mut Vec<u8>, kind: u8) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEAD]);
    buffer.push(kind);
    start
}

/// Ends the block that began at `start`: its length and checksum. After an error the buffer ends where the block began.
pub(super) fn seal(buffer: &mut Vec<u8>, start: usize) -> Result<(), String> {
    let payload = buffer.len() - start - HEAD;
    let Some(length) = u32::try_from(payload).ok().filter(|_| payload <= LONGEST) else {
        buffer.truncate(start);
        return Err(format!("a block of {payload} bytes is too long"));
    };
    buffer[start + 4..start + HEAD].copy_from_slice(&length.to_le_bytes());
    let sum = crc32fast::hash(&buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Appends a whole block; after an error the buffer is as before.
fn block(buffer: &mut Vec<u8>, kind: u8, front: &[u8], value: impl Encode) -> Result<(), String> {
    let start = begin(buffer, kind);
    buffer.extend_from_slice(front);
    match append(buffer, value) {
        Ok(()) => seal(buffer, start),
        Err(why) => {
            buffer.truncate(start);
            Err(why)
        }
    }
}

/// Appends the block of a header.
pub(super) fn header_block(buffer: &mut Vec<u8>, header: &Header) -> Result<(), String> {
    block(buffer, super::KIND_HEADER, &[], header)
}

/// Appends the block of a state, and how many steps led to it.
pub(super) fn state_block(buffer: &mut Vec<u8>, steps: u64, checkpoint: &Checkpoint) -> Result<(), String> {
    block(buffer, KIND_STATE, &steps.to_le_bytes(), checkpoint)
}

/// Appends the block of an index.
pub(super) fn index_block(buffer: &mut Vec<u8>, index: &Index) -> Result<(), String> {
    block(buffer, super::KIND_INDEX, &[], index)
}

/// Begins a block of steps; returns where.
pub(super) fn begin_steps(buffer: &mut Vec<u8>) -> usize {
    let start = begin(buffer, KIND_STEPS);
    buffer.resize(start + HEAD + STEPS_HEAD, 0);
    start
}

/// Ends a block of steps.
pub(super) fn seal_steps(buffer: &mut Vec<u8>, start: usize, head: StepsHead) -> Result<(), String> {
    let at = start + HEAD + 1;
    buffer[at..at + 8].copy_from_slice(&head.before.to_le_bytes());
    buffer[at + 8..at + 12].copy_from_slice(&head.count.to_le_bytes());
    buffer[at + 12..at + 16].copy_from_slice(&head.remarks.to_le_bytes());
    buffer[at + 16..at + 24].copy_from_slice(&head.time.to_le_bytes());
    seal(buffer, start)
}

/// The fixed part at the front of a payload that is a block of steps.
pub(super) fn steps_head(payload: &[u8]) -> Result<StepsHead, String> {
    let (kind, head) = payload.split_first().ok_or("an empty block")?;
    let too_short = || "a block of steps without its head".to_owned();
    let (before, head) = head.split_first_chunk().ok_or_else(too_short)?;
    let (count, head) = head.split_first_chunk().ok_or_else(too_short)?;
    let (remarks, head) = head.split_first_chunk().ok_or_else(too_short)?;
    let (time, _) = head.split_first_chunk().ok_or_else(too_short)?;
    if *kind != KIND_STEPS {
        return Err(format!("a block of kind {kind}, where steps are due"));
    }
    if payload.len() > LONGEST_STEPS {
        return Err(format!("a block of steps of {} bytes", payload.len()));
    }
    let (before, time) = (u64::from_le_bytes(*before), u64::from_le_bytes(*time));
    let (count, remarks) = (u32::from_le_bytes(*count), u32::from_le_bytes(*remarks));
    if count == 0 && remarks == 0 {
        return Err("a block of no steps".to_owned());
    }
    Ok(StepsHead { before, count, remarks, time })
}

/// A payload that is a header.
pub(super) fn header(payload: &[u8]) -> Result<Header, String> {
    whole(content(payload, super::KIND_HEADER)?)
}

/// A payload that is an index.
pub(super) fn index(payload: &[u8]) -> Result<Index, String> {
    whole(content(payload, super::KIND_INDEX)?)
}

/// A payload that is a state, and how many steps led to it.
pub(super) fn state(payload: &[u8]) -> Result<(u64, Checkpoint), String> {
    let content = content(payload, KIND_STATE)?;
    let (steps, content) = content.split_first_chunk().ok_or("a state without its step")?;
    Ok((u64::from_le_bytes(*steps), whole(content)?))
}

fn content(payload: &[u8], kind: u8) -> Result<&[u8], String> {
    match payload.split_first() {
        Some((found, content)) if *found == kind => Ok(content),
        Some((found, _)) => Err(format!("a block of kind {found}, where kind {kind} is due")),
        None => Err("an empty block".to_owned()),
    }
}
