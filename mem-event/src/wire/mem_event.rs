//! What both 40-byte layouts of `mem_event_request_t` share.
//!
//! ```text
//!  0  u64, different in flags16 and flags32; its upper half is u32 vcpu_id
//!  8  u64 gfn
//! 16  u64 offset
//! 24  u64 gla
//! 32  u32 p2mt
//! 36  u16 bits: 0 access_r, 1 access_w, 2 access_x, 3 gla_valid, 12 spare (zero)
//! 38  u16 reason: 0 none (paging, sharing), 1 violation, 2 CR0, 3 CR3, 4 CR4, 5 INT3, 6 single step, 7 MSR
//! ```
//! For CR0, CR3 and CR4 the old value stands in `gla` while `gla_valid` stays 0, as in Xen from a93b8e8ca5 on.

use super::{Malformed, high, low, pair};
use crate::control::CpuEventKind;
use crate::event::{Flags, Reason, Request};
use crate::number::{Gfn, Gla, VcpuId};
use crate::p2m::P2mType;
use crate::rights::Rights;

/// 64-bit words in a slot.
pub const WORDS: usize = 5;
/// A slot of either layout.
pub type Slot = [u64; WORDS];

/// `MEM_EVENT_REASON_VIOLATION`.
const VIOLATION: u32 = 1;
const GLA_VALID: u64 = 1 << 3;

#[inline(always)]
fn keeps_old_value(reason: Reason) -> bool {
    reason.cpu_event().is_some_and(CpuEventKind::has_old_value)
}

#[inline(always)]
fn reason_number(reason: Reason) -> u64 {
    match reason {
        Reason::Paging | Reason::Sharing => 0,
        Reason::Violation => VIOLATION.into(),
        cpu => cpu.cpu_event().map_or(0, |kind| kind.reason_number().into()),
    }
}

/// The reason with this number on the access ring.
#[inline(always)]
pub(super) fn access_reason(number: u32) -> Result<Reason, Malformed> {
    match number {
        VIOLATION => Ok(Reason::Violation),
        _ => CpuEventKind::from_reason_number(number).map(CpuEventKind::reason).ok_or(Malformed::Reason(number)),
    }
}

/// A whole slot from its first word's lower half, the number of the p2m type and the rest of the request.
#[inline(always)]
pub(super) fn write(first: u32, p2mt: u32, request: &Request) -> Slot {
    let valid = if request.gla.is_some() && !keeps_old_value(request.reason) { GLA_VALID } else { 0 };
    let bits = u64::from(request.rights.bits()) | valid;
    [
        pair(first, request.vcpu.0),
        request.gfn.0,
        u64::from(request.offset),
        request.gla.map_or(0, |gla| gla.0),
        u64::from(p2mt) | bits << 32 | reason_number(request.reason) << 48,
    ]
}

/// A whole slot of a response that echoes nothing.
#[inline(always)]
pub(super) fn bare(first: u32, vcpu: u32, gfn: Gfn) -> Slot {
    [pair(first, vcpu), gfn.0, 0, 0, 0]
}

/// The number in the field `reason`.
#[inline(always)]
pub(super) fn read_reason(slot: &Slot) -> u32 {
    high(slot[4]) >> 16
}

/// The number in the field `p2mt`.
#[inline(always)]
pub(super) fn read_p2mt(slot: &Slot) -> u32 {
    low(slot[4])
}

/// The rest of a request whose flags, reason and p2m type are read already.
#[inline(always)]
pub(super) fn read(slot: &Slot, flags: Flags, reason: Reason, p2mt: P2mType) -> Result<Request, Malformed> {
    let bits = slot[4] >> 32;
    let known = bits & GLA_VALID != 0 || keeps_old_value(reason);
    let offset = slot[2];
    if offset > 0xfff {
        return Err(Malformed::Offset(offset));
    }
    Ok(Request {
        reason,
        flags,
        vcpu: VcpuId(high(slot[0])),
        gfn: Gfn(slot[1]),
        offset: (offset & 0xfff) as u16,
        gla: known.then_some(Gla(slot[3])),
        p2mt,
        rights: Rights::from_bits((bits & 7) as u8),
    })
}
