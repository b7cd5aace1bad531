//! What both 40-byte layouts of `mem_event_request_t` share.
//!
//! ```text
//!  0  u64, different in flags16 and flags32; its upper half is u32 vcpu_id
//!  8  u64 gfn
//! 16  u64 offset
//! 24  u64 gla
//! 32  u32 p2mt
//! 36  u16 bits: 0 access_r, 1 access_w, 2 access_x, 3 gla_valid, 12 spare (zero)
//! 38  u16 reason: 0 none (paging, sharing), 1 violation, 2 CR0, 3 CR3, 4 CR4, 5 INT3, 6 single step, 7 MSR;
//!          of what `mem_event` never had `vm_event`'s number: 8 guest request, 9 debug exception, 10 CPUID, 12 interrupt,
//!          13 descriptor, 16 I/O;
//!          17 XCR0, which shares a number with the control registers there
//! ```
//! For CR0, CR3, CR4 and XCR0 the old value stands in `gla` while `gla_valid` stays 0, as in Xen from a93b8e8ca5 on. Of `cpuid`
//! `gfn` is the leaf, `gla` the subleaf with the instruction's length above it; of a descriptor `gfn` what is known of the instruction, `gla` the
//! table from 0 on and 4 where it is loaded; of I/O `gfn` is the port, `gla` the bytes at a time, 0x100 where it is read, 0x200 of a string;
//! of an interrupt `gfn` is the vector, `gla` the error code, above its 32 bits the type times 256.

use super::malformed::Malformed;
use crate::cpu_events::CpuEventKind;
use crate::event::{Cpu, Event, Flags, Reason, Request};
use crate::number::{Gfn, Gla, VcpuId, ViewId};
use crate::p2m::P2mType;
use crate::packed;
use crate::rights::Rights;
use crate::word::{high, low, pair};

/// 64-bit words in a slot.
pub const WORDS: usize = 5;
/// A slot of either layout.
pub type Slot = [u64; WORDS];

/// `MEM_EVENT_REASON_VIOLATION`.
const VIOLATION: u32 = 1;
const GLA_VALID: u64 = 1 << 3;

/// The kind of event with this number on the access ring.
#[inline(always)]
pub(super) fn access_reason(number: u32) -> Result<Reason, Malformed> {
    match number {
        VIOLATION => Ok(Reason::Violation),
        _ => CpuEventKind::from_reason_number(number).map(Reason::Cpu).ok_or(Malformed::Reason(number)),
    }
}

/// A whole slot from its first word's lower half, the number of the p2m type and the rest of the request.
#[inline(always)]
pub(super) fn write(first: u32, p2mt: u32, request: &Request) -> Slot {
    let (offset, gla, bits, reason) = match request.event {
        Event::Paging { .. } | Event::Sharing { .. } => (0, 0, 0, 0),
        Event::Violation { offset, gla, rights, .. } => {
            let valid = if gla.is_some() { GLA_VALID } else { 0 };
            (u64::from(offset), gla.map_or(0, |gla| gla.0), u64::from(rights.bits()) | valid, VIOLATION.into())
        }
        Event::Cpu(cpu) => cpu_fields(cpu),
    };
    [pair(first, request.vcpu.0), request.event.subject(), offset, gla, u64::from(p2mt) | bits << 32 | reason << 48]
}

/// Offset, `gla`, bits and reason of a CPU event.
#[inline(never)]
fn cpu_fields(cpu: Cpu) -> (u64, u64, u64, u64) {
    let (kind, second) = (cpu.kind(), packed::second_value(cpu));
    let offset =
        if matches!(cpu, Cpu::Int3 { .. } | Cpu::Debug { .. } | Cpu::SingleStep { .. }) { second & 0xfff } else { 0 };
    let valid = if kind.has_old_value() { 0 } else { GLA_VALID };
    (offset, second, valid, kind.reason_number().into())
}

/// A whole slot of a response that echoes nothing.
#[inline(always)]
pub(super) fn bare(first: u32, vcpu: u32, subject: u64) -> Slot {
    [pair(first, vcpu), subject, 0, 0, 0]
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

/// Whether a slot of the access ring is a violation.
#[inline(always)]
pub(super) fn is_violation(slot: &Slot) -> bool {
    read_reason(slot) == VIOLATION
}

/// A violation's request, whose flags are read already.
#[inline(always)]
pub(super) fn read_violation(slot: &Slot, flags: Flags) -> Result<Request, Malformed> {
    let (offset, bits) = (read_offset(slot)?, slot[4] >> 32);
    let gla = (bits & GLA_VALID != 0).then_some(Gla(slot[3]));
    let rights = Rights::from_bits((bits & 7) as u8);
    let event = Event::Violation { gfn: Gfn(slot[1]), offset, gla, rights, in_gpt: false };
    Ok(Request { flags, vcpu: VcpuId(high(slot[0])), event, view: ViewId::HOST })
}

/// The rest of a request whose flags, reason and p2m type are read already.
#[inline(always)]
pub(super) fn read(slot: &Slot, flags: Flags, reason: Reason, p2mt: P2mType) -> Result<Request, Malformed> {
    read_offset(slot)?;
    let gfn = Gfn(slot[1]);
    let event = match reason {
        Reason::Paging => Event::Paging { gfn, p2mt },
        Reason::Sharing => Event::Sharing { gfn, p2mt },
        Reason::Violation => return read_violation(slot, flags),
        Reason::Cpu(kind) => Event::Cpu(packed::cpu_event(kind, slot[1], slot[3])),
    };
    Ok(Request { flags, vcpu: VcpuId(high(slot[0])), event, view: ViewId::HOST })
}

/// The offset in the frame; bounded in every kind of request.
#[inline(always)]
fn read_offset(slot: &Slot) -> Result<u16, Malformed> {
    u16::try_from(slot[2]).ok().filter(|offset| *offset <= 0xfff).ok_or(Malformed::Offset(slot[2]))
}
