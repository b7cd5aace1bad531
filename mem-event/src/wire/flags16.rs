//! The seed's layout (Xen before 6eac9387aa, 2012-02).
//!
//! ```text
//!  0  u16 type: 0 sharing, 1 paging, 2 access      2  u16 flags      4  u32 vcpu_id      8  see `mem_event`
//! ```
//! The p2m types are numbered as they were then: what later is paging_in 11 was paging_in_start 12 (11 was the state after
//! `prep`, and reads as paging_in too), shared was 13 and broken 14. Flags above bit 15 do not fit and are cut.

use super::malformed::{self, Malformed};
use super::mem_event;
use crate::control::Ring;
use crate::event::{About, Flags, Reason, Request, Response};
use crate::number::ViewId;
use crate::p2m::P2mType;
use crate::word::{high, low};
use mem_event::Slot;

#[inline]
fn first(ring: Ring, flags: Flags) -> u32 {
    let kind = match ring {
        Ring::Sharing => 0,
        Ring::Paging => 1,
        Ring::Access => 2,
    };
    kind | flags.0 << 16
}

#[inline]
fn p2mt_number(p2mt: P2mType) -> u32 {
    match p2mt {
        P2mType::RamPagingIn | P2mType::RamShared | P2mType::RamBroken => p2mt as u32 + 1,
        same => same as u32,
    }
}

fn p2m_type(number: u32) -> Result<P2mType, Malformed> {
    match number {
        12..=14 => malformed::p2m_type(number - 1),
        same => malformed::p2m_type(same),
    }
}

/// A request as a slot.
#[inline]
#[must_use]
pub fn request(ring: Ring, request: &Request) -> Slot {
    mem_event::write(first(ring, request.flags), p2mt_number(request.event.p2mt()), request)
}

/// A response as a slot.
#[inline]
#[must_use]
pub fn response(ring: Ring, response: &Response) -> Slot {
    match response.echo() {
        Some(echo) => request(ring, &echo),
        None => mem_event::bare(first(ring, response.flags), response.vcpu, response.subject()),
    }
}

/// A slot as a request.
///
/// # Errors
/// [`Malformed`] for a type, reason, p2m type or offset that the layout does not know.
#[inline]
pub fn read_request(slot: &Slot) -> Result<Request, Malformed> {
    let number = mem_event::read_reason(slot);
    let reason = match (low(slot[0]) & 0xffff, number) {
        (0, 0) => Reason::Sharing,
        (1, 0) => Reason::Paging,
        (2, number) => mem_event::access_reason(number)?,
        (0 | 1, number) => return Err(Malformed::Reason(number)),
        (kind, _) => return Err(Malformed::Type(kind)),
    };
    mem_event::read(slot, Flags(low(slot[0]) >> 16), reason, p2m_type(mem_event::read_p2mt(slot))?)
}

/// A slot as a response.
#[inline]
#[must_use]
pub fn read_response(slot: &Slot) -> Response {
    Response {
        flags: Flags(low(slot[0]) >> 16),
        vcpu: high(slot[0]),
        about: read_request(slot).map_or(About::Other(slot[1]), |request| About::Event(request.event)),
        other_version: None,
        view: ViewId::HOST,
    }
}
