//! Whole values to bytes and back: bincode 2.0.1 in its standard configuration, which its successors read.

use super::bytes::{Bytes, Found};
use super::{LONGEST, LONGEST_STEP};
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, EncoderImpl};
use bincode::error::EncodeError;
use bincode::{Decode, decode_from_slice};

/// Of a step's parts.
const CONFIG: Configuration<LittleEndian, Varint, Limit<LONGEST_STEP>> = config::standard().with_limit();
/// Of what a block holds alone.
const LARGE: Configuration<LittleEndian, Varint, Limit<LONGEST>> = config::standard().with_limit();

struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends a value.
pub(super) fn append(buffer: &mut Vec<u8>, value: impl Encode) -> Found<()> {
    value.encode(&mut EncoderImpl::new(Append(buffer), CONFIG)).map_err(|error| error.to_string())
}

/// The value that these bytes begin with.
pub(super) fn read<T: Decode<()>>(bytes: &mut Bytes<'_>) -> Found<T> {
    let (value, used) = decode_from_slice(bytes.rest(), CONFIG).map_err(|error| undecodable(&error))?;
    bytes.take(used)?;
    Ok(value)
}

/// The value that these bytes are.
pub(super) fn whole<T: Decode<()>>(content: &[u8]) -> Found<T> {
    match decode_from_slice(content, LARGE) {
        Ok((value, used)) if used == content.len() => Ok(value),
        Ok((_, used)) => Err(format!("{} bytes too many in a block", content.len() - used)),
        Err(error) => Err(undecodable(&error)),
    }
}

fn undecodable(error: &bincode::error::DecodeError) -> String {
    format!("a block that does not decode ({error})")
}
