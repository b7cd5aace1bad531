//! Values to bytes and back: bincode 2.0.1 in its standard configuration, which its successors read.

use super::{HEAD, Header, Index, KIND_STATE, KIND_STEPS, LONGEST, LONGEST_STEP, Remark, Step};
use crate::effect::{Effects, Outcome};
use crate::input::Input;
use crate::state::Checkpoint;
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::EncodeError;
use bincode::{BorrowDecode, Decode, borrow_decode_from_slice, decode_from_slice};

const CONFIG: Configuration<LittleEndian, Varint, Limit<LONGEST_STEP>> = config::standard().with_limit();
const LARGE: Configuration<LittleEndian, Varint, Limit<LONGEST>> = config::standard().with_limit();

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

/// What stands before a remark where a step has its caller.
const REMARK: u32 = 1;

/// What stands before a step: 0, or its caller's number and 1.
fn mark(connection: u32) -> u32 {
    if connection == 0 { 0 } else { connection.saturating_add(1) }
}

/// As much of a step as a replay needs beforehand; what the engine answered stays encoded, to be compared.
pub(super) struct Told<'a> {
    /// Nanoseconds since the step or remark before.
    pub later: u64,
    pub connection: u32,
    pub code: &'a [u8],
    pub input: Input,
    pub taken: &'a [u8],
    /// What follows: the answer, then other steps.
    pub rest: &'a [u8],
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn append(buffer: &mut Vec<u8>, value: impl Encode) -> Result<(), String> {
    value.encode(&mut EncoderImpl::new(Append(buffer), CONFIG)).map_err(|error| error.to_string())
}

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

/// Appends a step to a block, `later` than the one before; after an error the buffer is as before.
#[inline]
pub(super) fn step(
    buffer: &mut Vec<u8>,
    (later, connection, code): (u64, u32, &[u8]),
    input: &Input,
    outcome: &Outcome,
    effects: &Effects,
) -> Result<(), String> {
    let start = buffer.len();
    let told = (later, mark(connection), code, input, effects.taken.as_slice());
    let appended = append(buffer, told).and_then(|()| append(buffer, (outcome, effects.list.as_slice())));
    bounded(buffer, start, appended)
}

/// Appends a remark to a block, `later` than what stands before it; after an error the buffer is as before.
pub(super) fn remark(buffer: &mut Vec<u8>, later: u64, remark: &Remark) -> Result<(), String> {
    let start = buffer.len();
    let appended = append(buffer, (later, REMARK, remark));
    bounded(buffer, start, appended)
}

fn bounded(buffer: &mut Vec<u8>, start: usize, appended: Result<(), String>) -> Result<(), String> {
    let size = buffer.len() - start;
    let done = appended.and_then(|()| match size {
        0..=LONGEST_STEP => Ok(()),
        _ => Err(format!("a step of {size} bytes is too long")),
    });
    if done.is_err() {
        buffer.truncate(start);
    }
    done
}

/// Appends the last part of a step; whether the bytes of [`Told::rest`] begin with these is what a replay asks.
#[inline]
pub(super) fn answer(buffer: &mut Vec<u8>, outcome: &Outcome, effects: &Effects) -> Result<(), String> {
    append(buffer, (outcome, effects.list.as_slice()))
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
    let (before, time) = (u64::from_le_bytes(*before), u64::from_le_bytes(*time));
    let (count, remarks) = (u32::from_le_bytes(*count), u32::from_le_bytes(*remarks));
    if count == 0 && remarks == 0 {
        return Err("a block of no steps".to_owned());
    }
    Ok(StepsHead { before, count, remarks, time })
}

/// The first step of these bytes, whole, with how many nanoseconds it is later than the one before in place of its time; and how
/// many bytes it has.
pub(super) fn read_step(bytes: &[u8]) -> Result<(Step, usize), String> {
    let Told { later, connection, code, input, taken, rest } = told(bytes)?;
    let ((outcome, list), used): ((Outcome, Vec<_>), usize) = part(rest)?;
    let effects = Effects { list, taken: taken.to_vec() };
    let step = Step { time: later, code: code.to_vec(), connection, input, outcome, effects };
    Ok((step, bytes.len() - rest.len() + used))
}

/// The remark that these bytes begin with, if they do not begin with a step: how much later it is than what stands before it, and how many
/// bytes it has.
#[inline]
pub(super) fn read_remark(bytes: &[u8]) -> Result<Option<(u64, Remark, usize)>, String> {
    let ((later, mark), at): ((u64, u32), usize) = part(bytes)?;
    if mark != REMARK {
        return Ok(None);
    }
    let (remark, used) = part(&bytes[at..])?;
    Ok(Some((later, remark, at + used)))
}

/// The first step of these bytes, as far as a replay needs it.
#[inline]
pub(super) fn told(bytes: &[u8]) -> Result<Told<'_>, String> {
    let ((later, mark), at): ((u64, u32), usize) = part(bytes)?;
    let connection = match mark {
        REMARK => return Err("a remark where a step is due".to_owned()),
        mark => mark.saturating_sub(1),
    };
    let (code, more) = part(&bytes[at..])?;
    let at = at + more;
    let (input, more) = part(&bytes[at..])?;
    let at = at + more;
    let (taken, more) = part(&bytes[at..])?;
    let used = at + more;
    Ok(Told { later, connection, code, input, taken, rest: &bytes[used..] })
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

fn whole<T: Decode<()>>(content: &[u8]) -> Result<T, String> {
    match decode_from_slice(content, LARGE) {
        Ok((value, used)) if used == content.len() => Ok(value),
        Ok((_, used)) => Err(format!("{} bytes too many in a block", content.len() - used)),
        Err(error) => Err(undecodable(&error)),
    }
}

#[inline]
fn part<'a, T: BorrowDecode<'a, ()>>(content: &'a [u8]) -> Result<(T, usize), String> {
    borrow_decode_from_slice(content, CONFIG).map_err(|error| undecodable(&error))
}

fn undecodable(error: &bincode::error::DecodeError) -> String {
    format!("a block that does not decode ({error})")
}
