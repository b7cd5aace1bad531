//! A packet with its parts told apart: the header of 64 bytes, and the payload behind it.

use crate::number::{Gfn, PAGE_SIZE};
use std::fmt;

/// Bytes in the header.
pub const HEADER: usize = 64;
/// Bytes in the largest packet.
pub const LARGEST: usize = HEADER + PAGE_SIZE;
const MAGIC: u32 = u32::from_le_bytes(*b"MEV1");
pub(super) const CALL: u16 = 1;
pub(super) const REPLY: u16 = 2;
pub(super) const NOTICE: u16 = 3;

/// A packet that is none of ours, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A packet with its parts told apart; what its numbers mean is not checked yet.
pub(super) struct Packet<'a> {
    pub kind: u16,
    pub operation: u16,
    pub sequence: u32,
    pub error: u32,
    pub arguments: [u64; 5],
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.operation.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.error.to_le_bytes());
        for argument in self.arguments {
            bytes.extend(argument.to_le_bytes());
        }
        bytes.extend(u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(self.payload);
        bytes
    }

    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
            return Err(Malformed(format!("{} bytes where a header has {HEADER}", bytes.len())));
        };
        let u64_at = |at: usize| header[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let u32_at = |at: usize| header[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if u32_at(0) != MAGIC {
            return Err(Malformed(format!("magic {:#x} at byte 0 where {MAGIC:#x} stands", u32_at(0))));
        }
        if payload.len() > PAGE_SIZE || u32_at(56) as usize != payload.len() {
            return Err(Malformed(format!("payload length {} at byte 56, {} bytes follow", u32_at(56), payload.len())));
        }
        Ok(Packet {
            kind: u16_at(4),
            operation: u16_at(6),
            sequence: u32_at(8),
            error: u32_at(12),
            arguments: [u64_at(16), u64_at(24), u64_at(32), u64_at(40), u64_at(48)],
            payload,
        })
    }

    pub fn expect(self, kind: u16) -> Result<Packet<'a>, Malformed> {
        if self.kind == kind { Ok(self) } else { Err(Malformed(format!("kind {} where {kind} is due", self.kind))) }
    }

    pub fn u16(&self, index: usize) -> Result<u16, Malformed> {
        let value = self.arguments[index];
        u16::try_from(value).map_err(|_| Malformed(format!("argument {index} is {value:#x}, above 65535")))
    }

    pub fn u32(&self, index: usize) -> Result<u32, Malformed> {
        let value = self.arguments[index];
        u32::try_from(value).map_err(|_| Malformed(format!("argument {index} is {value:#x}, above 32 bits")))
    }

    pub fn switch(&self, index: usize) -> Result<bool, Malformed> {
        match self.arguments[index] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Malformed(format!("argument {index} is {other:#x}, neither 0 nor 1"))),
        }
    }

    pub fn gfn(&self) -> Gfn {
        Gfn(self.arguments[0])
    }

    /// The payload as a text.
    pub fn text(&self, what: &str) -> Result<String, Malformed> {
        String::from_utf8(self.payload.to_vec()).map_err(|_| Malformed(format!("{what} that is no UTF-8")))
    }
}
