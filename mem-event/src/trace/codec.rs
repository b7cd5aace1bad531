//! Values to bytes and back: bincode 2.0.1 in its standard configuration, which its successors read.

use super::{FRAME, KIND_END, KIND_HEADER, KIND_STEP, LONGEST};
use crate::effect::{Effects, Outcome};
use crate::input::Input;
use crate::trace::{Header, Step};
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::EncodeError;
use bincode::{Decode, decode_from_slice};

const CONFIG: Configuration<LittleEndian, Varint, Limit<LONGEST>> = config::standard().with_limit::<LONGEST>();

/// What a frame holds.
pub(super) enum Record {
    Header(Header),
    Step(Step),
    End(u64),
}

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the frame of a header.
pub(super) fn header_frame(buffer: &mut Vec<u8>, header: &Header) -> Result<(), String> {
    frame(buffer, KIND_HEADER, header)
}

/// Appends the frame of a step, as [`Step`] would be encoded.
pub(super) fn step_frame(
    buffer: &mut Vec<u8>,
    input: &Input,
    outcome: &Outcome,
    effects: &Effects,
) -> Result<(), String> {
    frame(buffer, KIND_STEP, (input, outcome, effects))
}

/// Appends the frame of an ordered end.
pub(super) fn end_frame(buffer: &mut Vec<u8>, steps: u64) -> Result<(), String> {
    frame(buffer, KIND_END, steps)
}

/// Appends a frame; after an error the buffer is as before.
fn frame(buffer: &mut Vec<u8>, kind: u8, value: impl Encode) -> Result<(), String> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME]);
    buffer.push(kind);
    let encoded = value.encode(&mut EncoderImpl::new(Append(buffer), CONFIG)).map_err(|error| error.to_string());
    let payload = buffer.len() - start - FRAME;
    let length = match (encoded, u32::try_from(payload)) {
        (Ok(()), Ok(length)) if payload <= LONGEST => length.to_le_bytes(),
        (result, _) => {
            buffer.truncate(start);
            return Err(result.err().unwrap_or_else(|| format!("a frame of {payload} bytes is too long")));
        }
    };
    let sum = checksum(length, &buffer[start + FRAME..]);
    buffer[start..start + 4].copy_from_slice(&length);
    buffer[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// The sum that stands in a frame.
pub(super) fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// A payload's record.
pub(super) fn record(payload: &[u8]) -> Result<Record, String> {
    let (kind, content) = payload.split_first().ok_or("an empty frame")?;
    match *kind {
        KIND_HEADER => whole(content).map(Record::Header),
        KIND_STEP => whole(content).map(Record::Step),
        KIND_END => whole(content).map(Record::End),
        kind => Err(format!("a frame of kind {kind}")),
    }
}

fn whole<T: Decode<()>>(content: &[u8]) -> Result<T, String> {
    match decode_from_slice(content, CONFIG) {
        Ok((value, used)) if used == content.len() => Ok(value),
        Ok((_, used)) => Err(format!("{} bytes too many in a frame", content.len() - used)),
        Err(error) => Err(format!("a frame that does not decode ({error})")),
    }
}
