//! What a call is answered with.

use super::packet::{Malformed, Packet, REPLY};
use crate::errno::Errno;
use crate::number::PAGE_SIZE;

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done; up to five values.
    Done([u64; 5]),
    /// Done; some bytes.
    Bytes(Vec<u8>),
    /// Refused, and why.
    Refused(Errno, String),
}

impl Reply {
    /// The packet of this reply to the call with this sequence number and operation.
    #[must_use]
    pub fn encode(&self, sequence: u32, operation: u16) -> Vec<u8> {
        let (error, arguments, payload) = match self {
            Reply::Done(values) => (0, *values, &[][..]),
            Reply::Bytes(bytes) => (0, [0; 5], &bytes[..]),
            Reply::Refused(errno, sentence) => {
                (*errno as u32, [0; 5], &sentence.as_bytes()[..sentence.len().min(PAGE_SIZE)])
            }
        };
        Packet { kind: REPLY, operation, sequence, error, arguments, payload }.bytes()
    }

    /// The reply of a packet, with its sequence number.
    ///
    /// # Errors
    /// A packet that is no reply of this version.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Reply), Malformed> {
        let packet = Packet::parse(bytes)?.expect(REPLY)?;
        let reply = match u8::try_from(packet.error) {
            Ok(0) if packet.payload.is_empty() => Reply::Done(packet.arguments),
            Ok(0) => Reply::Bytes(packet.payload.to_vec()),
            Ok(number) => match Errno::from_number(number) {
                Some(errno) => Reply::Refused(errno, String::from_utf8_lossy(packet.payload).into_owned()),
                None => return Err(Malformed(format!("no error number {number}"))),
            },
            Err(_) => return Err(Malformed(format!("error number {} at byte 12", packet.error))),
        };
        Ok((packet.sequence, reply))
    }
}
