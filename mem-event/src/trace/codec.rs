//! Values to bytes and back: bincode 2.0.1 in its standard configuration, which its successors read.

use super::{FRAME, Header, KIND_END, KIND_HEADER, KIND_STEP, LONGEST, Step};
use crate::effect::{Effects, Outcome};
use crate::input::Input;
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::EncodeError;
use bincode::{BorrowDecode, borrow_decode_from_slice};

const CONFIG: Configuration<LittleEndian, Varint, Limit<LONGEST>> = config::standard().with_limit::<LONGEST>();

/// What a frame holds.
pub(super) enum Record {
    Header(Header),
    Step(Step),
    End(u64),
}

/// As much of a step as a replay needs beforehand; what the engine answered stays encoded, to be compared.
pub(super) struct Told<'a> {
    pub input: Input,
    pub taken: &'a [u8],
    pub answer: &'a [u8],
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the frame of a header.
pub(super) fn header_frame(buffer: &mut Vec<u8>, header: &Header) -> Result<(), String> {
    frame(buffer, KIND_HEADER, header)
}

/// Appends the frame of a step.
pub(super) fn step_frame(
    buffer: &mut Vec<u8>,
    input: &Input,
    outcome: &Outcome,
    effects: &Effects,
) -> Result<(), String> {
    frame(buffer, KIND_STEP, (input, effects.taken.as_slice(), outcome, effects.list.as_slice()))
}

/// Appends the frame of an ordered end.
pub(super) fn end_frame(buffer: &mut Vec<u8>, steps: u64) -> Result<(), String> {
    frame(buffer, KIND_END, steps)
}

/// Appends the last part of a step's frame; whether these are the bytes of [`Told::answer`] is what a replay asks.
pub(super) fn answer(buffer: &mut Vec<u8>, outcome: &Outcome, effects: &Effects) -> Result<(), String> {
    let encoded = (outcome, effects.list.as_slice()).encode(&mut EncoderImpl::new(Append(buffer), CONFIG));
    encoded.map_err(|error| error.to_string())
}

/// Appends a frame; after an error the buffer is as before.
fn frame(buffer: &mut Vec<u8>, kind: u8, value: impl Encode) -> Result<(), String> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME]);
    buffer.push(kind);
    let encoded = value.encode(&mut EncoderImpl::new(Append(buffer), CONFIG)).map_err(|error| error.to_string());
    let payload = buffer.len() - start - FRAME;
    let length = match (encoded, u32::try_from(payload)) {
        (Ok(()), Ok(length)) if payload <= LONGEST => length,
        (result, _) => {
            buffer.truncate(start);
            return Err(result.err().unwrap_or_else(|| format!("a frame of {payload} bytes is too long")));
        }
    };
    buffer[start + 4..start + FRAME].copy_from_slice(&length.to_le_bytes());
    let sum = crc32fast::hash(&buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// A payload's kind and the rest of it.
pub(super) fn kind(payload: &[u8]) -> Result<(u8, &[u8]), String> {
    payload.split_first().map(|(kind, content)| (*kind, content)).ok_or_else(|| "an empty frame".to_owned())
}

/// A payload's record.
pub(super) fn record(payload: &[u8]) -> Result<Record, String> {
    let (kind, content) = kind(payload)?;
    match kind {
        KIND_HEADER => whole(content).map(Record::Header),
        KIND_STEP => {
            let (input, taken, outcome, list) = whole(content)?;
            Ok(Record::Step(Step { input, outcome, effects: Effects { list, taken } }))
        }
        KIND_END => whole(content).map(Record::End),
        kind => Err(format!("a frame of kind {kind}")),
    }
}

/// A step's payload without its kind, as far as a replay needs it.
pub(super) fn told(content: &[u8]) -> Result<Told<'_>, String> {
    let (input, used) = part(content)?;
    let (taken, more) = part(&content[used..])?;
    Ok(Told { input, taken, answer: &content[used + more..] })
}

fn whole<'a, T: BorrowDecode<'a, ()>>(content: &'a [u8]) -> Result<T, String> {
    match part(content)? {
        (value, used) if used == content.len() => Ok(value),
        (_, used) => Err(format!("{} bytes too many in a frame", content.len() - used)),
    }
}

fn part<'a, T: BorrowDecode<'a, ()>>(content: &'a [u8]) -> Result<(T, usize), String> {
    borrow_decode_from_slice(content, CONFIG).map_err(|error| format!("a frame that does not decode ({error})"))
}
