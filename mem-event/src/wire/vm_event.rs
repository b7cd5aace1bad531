//! `vm_event_request_t` of interface version 7 (Xen 4.15 to 4.17 and later): 400 bytes.
//!
//! ```text
//!   0  u32 version = 7     4  u32 flags     8  u32 reason     12  u32 vcpu_id     16  u16 altp2m_idx, padding
//!  24  by reason, 32 bytes:
//!        1 mem_access           24 gfn   32 offset   40 gla   48 u32 flags: r 1, w 2, x 4, gla_valid 8
//!        2 mem_sharing          24 gfn   32 u32 p2mt
//!        3 mem_paging           24 gfn   32 u32 p2mt   36 u32 flags: drop_page 1, evict_fail 2
//!        4 write_ctrlreg        24 u32 register: CR0 0, CR3 1, CR4 2   32 new   40 old
//!        5 mov_to_msr           24 msr   32 new   40 old (zero: the engine does not know it)
//!        6 software_breakpoint  24 gfn   32 pending_dbg   40 u32 insn_length = 1   44 u8 type = 6
//!        7 singlestep           24 gfn
//!  56  registers, 344 bytes: see [`Registers`]
//! ```
//! Flags: bit 0 VCPU_PAUSED and bit 1 FOREIGN have counterparts in [`Flags`]; EMULATE (2) and EMULATE_NOWRITE (3) are its
//! bits 5 and 6 as in Xen 4.5; what follows (4 TOGGLE_SINGLESTEP to 15) is kept 16 bits higher. DUMMY does not exist here.
//! Where a breakpoint or a single step comes without registers, `rip` is written from the request's `gla`; everything else
//! of the register file is zero then.

use super::{Malformed, high, low, pair};
use crate::control::Ring;
use crate::event::{Flags, Reason, Request, Response};
use crate::number::{Gfn, Gla, VcpuId};
use crate::p2m::P2mType;
use crate::rights::Rights;
use crate::wire::registers::{self, DATA};

pub use crate::wire::registers::{Registers, Segment};

/// 64-bit words in a slot.
pub const WORDS: usize = 50;
/// A slot.
pub type Slot = [u64; WORDS];
/// `VM_EVENT_INTERFACE_VERSION`.
pub const VERSION: u32 = 7;

const GLA_VALID: u32 = 8;
const RIP: usize = DATA + 19;
const BREAKPOINT: u64 = 1 | 6 << 32;

fn register(reason: Reason) -> u32 {
    match reason {
        Reason::Cr3 => 1,
        Reason::Cr4 => 2,
        _ => 0,
    }
}

fn flags_number(flags: Flags) -> u32 {
    let own = flags.0 & 1 | (flags.0 >> 3 & 1) << 1;
    own | (flags.0 >> 5 & 3) << 2 | flags.0 >> 16 & 0xfff0
}

fn read_flags(number: u32) -> Flags {
    let own = number & 1 | (number >> 1 & 1) << 3;
    Flags(own | (number >> 2 & 3) << 5 | (number & 0xfff0) << 16)
}

/// A request as a slot, with the vCPU's registers where they are known.
#[must_use]
pub fn request(request: &Request, registers: Option<&Registers>) -> Slot {
    let mut slot = [0; WORDS];
    slot[3] = request.gfn.0;
    let gla = request.gla.map_or(0, |gla| gla.0);
    let reason = match request.reason {
        Reason::Violation => {
            slot[4] = u64::from(request.offset);
            slot[5] = gla;
            slot[6] = u64::from(u32::from(request.rights.bits()) | if request.gla.is_some() { GLA_VALID } else { 0 });
            1
        }
        Reason::Sharing => {
            slot[4] = request.p2mt as u64;
            2
        }
        Reason::Paging => {
            slot[4] = pair(request.p2mt as u32, request.flags.0 >> 1 & 3);
            3
        }
        Reason::Cr0 | Reason::Cr3 | Reason::Cr4 => {
            slot[3..6].copy_from_slice(&[u64::from(register(request.reason)), request.gfn.0, gla]);
            4
        }
        Reason::Msr => {
            slot[3..5].copy_from_slice(&[gla, request.gfn.0]);
            5
        }
        Reason::Int3 => {
            slot[5] = BREAKPOINT;
            6
        }
        Reason::SingleStep => 7,
    };
    slot[0] = pair(VERSION, flags_number(request.flags));
    slot[1] = pair(reason, request.vcpu.0);
    match registers {
        Some(known) => registers::write(&mut slot, known),
        None if matches!(request.reason, Reason::Int3 | Reason::SingleStep) => slot[RIP] = gla,
        None => {}
    }
    slot
}

/// A response as a slot. One that echoes nothing gets the reason of its ring, so that its frame has a place.
#[must_use]
pub fn response(ring: Ring, response: &Response) -> Slot {
    let mut slot = match response.echo() {
        Some(echo) => request(&echo, None),
        None => {
            let reason = match ring {
                Ring::Access => 1,
                Ring::Sharing => 2,
                Ring::Paging => 3,
            };
            let mut slot = [0; WORDS];
            slot[1] = pair(reason, response.vcpu);
            slot[3] = response.gfn.0;
            if ring == Ring::Paging {
                slot[4] = pair(0, response.flags.0 >> 1 & 3);
            }
            slot
        }
    };
    slot[0] = pair(response.other_version.unwrap_or(VERSION), flags_number(response.flags));
    slot
}

/// A slot as a request.
///
/// # Errors
/// [`Malformed`] for a version, reason, control register, p2m type or offset that this layout does not know.
pub fn read_request(slot: &Slot) -> Result<Request, Malformed> {
    if low(slot[0]) != VERSION {
        return Err(Malformed::Version(low(slot[0])));
    }
    let mut request = Request {
        reason: Reason::Violation,
        flags: read_flags(high(slot[0])),
        vcpu: VcpuId(high(slot[1])),
        gfn: Gfn(slot[3]),
        offset: 0,
        gla: None,
        p2mt: P2mType::RamRw,
        rights: Rights::NONE,
    };
    match low(slot[1]) {
        1 => {
            let bits = low(slot[6]);
            request.offset =
                u16::try_from(slot[4]).ok().filter(|offset| *offset < 4096).ok_or(Malformed::Offset(slot[4]))?;
            request.gla = (bits & GLA_VALID != 0).then_some(Gla(slot[5]));
            request.rights = Rights::from_bits((bits & 7) as u8);
        }
        2 => {
            request.reason = Reason::Sharing;
            request.p2mt = super::p2m_type(low(slot[4]))?;
        }
        3 => {
            request.reason = Reason::Paging;
            request.p2mt = super::p2m_type(low(slot[4]))?;
            request.flags.0 |= (high(slot[4]) & 3) << 1;
        }
        4 => {
            request.reason = match low(slot[3]) {
                0 => Reason::Cr0,
                1 => Reason::Cr3,
                2 => Reason::Cr4,
                other => return Err(Malformed::Register(other)),
            };
            request.gfn = Gfn(slot[4]);
            request.gla = Some(Gla(slot[5]));
        }
        5 => {
            request.reason = Reason::Msr;
            request.gfn = Gfn(slot[4]);
            request.gla = Some(Gla(slot[3]));
        }
        number @ (6 | 7) => {
            request.reason = if number == 6 { Reason::Int3 } else { Reason::SingleStep };
            request.gla = Some(Gla(slot[RIP]));
            request.offset = (slot[RIP] & 0xfff) as u16;
        }
        number => return Err(Malformed::Reason(number)),
    }
    Ok(request)
}

/// A slot as a response. Nothing but its version is read from one of another version.
#[must_use]
pub fn read_response(slot: &Slot) -> Response {
    if low(slot[0]) != VERSION {
        let other_version = Some(low(slot[0]));
        return Response { flags: Flags::NONE, vcpu: 0, gfn: Gfn(0), request: None, other_version };
    }
    let request = read_request(slot).ok();
    Response {
        flags: request.map_or_else(|| read_flags(high(slot[0])), |request| request.flags),
        vcpu: high(slot[1]),
        gfn: request.map_or(Gfn(slot[3]), |request| request.gfn),
        request,
        other_version: None,
    }
}

/// The registers in a slot.
#[must_use]
pub fn read_registers(slot: &Slot) -> Registers {
    registers::read(slot)
}
