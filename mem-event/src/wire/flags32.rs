//! Xen 4.2's layout (6eac9387aa, 2012-02, to 4.4).
//!
//! ```text
//!  0  u32 flags      4  u32 vcpu_id      8  see `mem_event`
//! ```
//! No field says whether a request is about paging or sharing; the ring does.

use super::malformed::{Malformed, p2m_type};
use super::mem_event;
use crate::control::Ring;
use crate::event::{About, Flags, Reason, Request, Response};
use crate::number::ViewId;
use crate::word::{high, low};
pub(crate) use mem_event::Slot;

/// A request as a slot.
#[inline(always)]
#[must_use]
pub fn request(request: &Request) -> Slot {
    mem_event::write(request.flags.0, request.event.p2mt() as u32, request)
}

/// A response as a slot.
#[inline(always)]
#[must_use]
pub fn response(response: &Response) -> Slot {
    match response.echo() {
        Some(echo) => request(&echo),
        None => mem_event::bare(response.flags.0, response.vcpu, response.subject()),
    }
}

/// A slot as a request.
///
/// # Errors
/// [`Malformed`] for a reason, p2m type or offset that the layout does not know on this ring.
#[inline(always)]
pub fn read_request(ring: Ring, slot: &Slot) -> Result<Request, Malformed> {
    if ring == Ring::Access && mem_event::is_violation(slot) {
        // Most requests are violations. With one kind of event only, the request stays in registers.
        p2m_type(mem_event::read_p2mt(slot))?;
        return mem_event::read_violation(slot, Flags(low(slot[0])));
    }
    read_other(ring, *slot)
}

/// Takes the slot by value, so that its words stay in registers where the request is a violation.
#[inline(never)]
fn read_other(ring: Ring, slot: Slot) -> Result<Request, Malformed> {
    let slot = &slot;
    let reason = match (ring, mem_event::read_reason(slot)) {
        (Ring::Paging, 0) => Reason::Paging,
        (Ring::Sharing, 0) => Reason::Sharing,
        (Ring::Access, number) => mem_event::access_reason(number)?,
        (_, number) => return Err(Malformed::Reason(number)),
    };
    mem_event::read(slot, Flags(low(slot[0])), reason, p2m_type(mem_event::read_p2mt(slot))?)
}

/// A slot as a response.
#[inline(always)]
#[must_use]
pub fn read_response(ring: Ring, slot: &Slot) -> Response {
    Response {
        flags: Flags(low(slot[0])),
        vcpu: high(slot[0]),
        about: read_request(ring, slot).map_or(About::Other(slot[1]), |request| About::Event(request.event)),
        other_version: None,
        view: ViewId::HOST,
    }
}

/// A slot as a response about a violation, if it is one.
#[inline(always)]
pub(crate) fn read_violation(ring: Ring, slot: &Slot) -> Option<Response> {
    if ring != Ring::Access || !mem_event::is_violation(slot) || p2m_type(mem_event::read_p2mt(slot)).is_err() {
        return None;
    }
    let request = mem_event::read_violation(slot, Flags(low(slot[0]))).ok()?;
    let Request { flags, vcpu, event, view } = request;
    Some(Response { flags, vcpu: vcpu.0, about: About::Event(event), other_version: None, view })
}

/// Of a response what the engine goes by: flags, vCPU and [`crate::Event::subject`]. All events have it at the same place.
#[inline(always)]
pub(crate) fn read_answer(slot: &Slot) -> (Flags, u32, u64) {
    (Flags(low(slot[0])), high(slot[0]), slot[1])
}
