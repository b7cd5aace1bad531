//! Whose breakpoint is where.

use super::packet::Malformed;
use super::report::reports;
use crate::number::{Gpa, PAGE_SIZE};

/// A breakpoint that a connection has set: [`super::Call::Breakpoints`]. Where several have set one there is one of these for each.
///
/// ```text
///  0  u64 guest-physical address    8  u32 connection, 0 for one that has ended
/// 12  u8 the byte beneath          13  u8 flags: bit 0 it stays when its connection ends, bit 1 it is the caller's    14  u16 zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakpointReport {
    /// Where it is.
    pub gpa: Gpa,
    /// The number of the connection whose it is; none where that has ended and left it there.
    pub connection: Option<u32>,
    /// The byte that is there without breakpoints.
    pub beneath: u8,
    /// Whether it stays when its connection ends.
    pub stays: bool,
    /// Whether the connection that asked has set it.
    pub is_own: bool,
}

/// How a vCPU gets over a breakpoint that is not the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Over {
    /// Not at all: the guest gets it, whatever its answer says.
    Delivered,
    /// What stands there when it is answered is fetched: the byte beneath, if that was put back.
    #[default]
    FetchedAgain,
    /// Its answer may bring the instruction, too.
    Brought,
}

impl Over {
    const ALL: [Over; 3] = [Over::Delivered, Over::FetchedAgain, Over::Brought];

    /// As a value of a reply.
    #[must_use]
    pub const fn number(self) -> u64 {
        self as u64
    }

    /// The one with this number.
    #[must_use]
    pub fn of_number(number: u64) -> Option<Over> {
        Over::ALL.into_iter().find(|over| over.number() == number)
    }
}

impl BreakpointReport {
    /// Bytes of one.
    pub const BYTES: usize = 16;
    /// How many come with one reply. Those of one address come together.
    pub const MOST: usize = PAGE_SIZE / BreakpointReport::BYTES;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; BreakpointReport::BYTES] {
        let mut bytes = [0; BreakpointReport::BYTES];
        bytes[..8].copy_from_slice(&self.gpa.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.connection.unwrap_or_default().to_le_bytes());
        bytes[12] = self.beneath;
        bytes[13] = u8::from(self.stays) | u8::from(self.is_own) << 1;
        bytes
    }

    /// The reports of a reply's payload.
    ///
    /// # Errors
    /// A payload that is none of this version.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<BreakpointReport>, Malformed> {
        let all = reports::<{ BreakpointReport::BYTES }>(payload, "breakpoint")?;
        Ok(all.iter().map(BreakpointReport::decode).collect())
    }

    fn decode(bytes: &[u8; BreakpointReport::BYTES]) -> BreakpointReport {
        let [a, b, c, d, e, f, g, h, i, j, k, l, beneath, flags, ..] = *bytes;
        let connection = u32::from_le_bytes([i, j, k, l]);
        BreakpointReport {
            gpa: Gpa(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            connection: Some(connection).filter(|connection| *connection != 0),
            beneath,
            stays: flags & 1 != 0,
            is_own: flags & 2 != 0,
        }
    }
}
