//! `vm_event_request_t` of interface version 7 (Xen 4.15 to 4.17 and later): 400 bytes.
//!
//! ```text
//!   0  u32 version = 7     4  u32 flags     8  u32 reason     12  u32 vcpu_id     16  u16 altp2m_idx, padding
//!  24  by reason, 32 bytes:
//!        1 mem_access           24 gfn   32 offset   40 gla   48 u32 flags: r 1, w 2, x 4, gla_valid 8, with_gla 16, in_gpt 32
//!        2 mem_sharing          24 gfn   32 u32 p2mt
//!        3 mem_paging           24 gfn   32 u32 p2mt   36 u32 flags: drop_page 1, evict_fail 2
//!        4 write_ctrlreg        24 u32 register: CR0 0, CR3 1, CR4 2, XCR0 3   32 new   40 old
//!        5 mov_to_msr           24 msr   32 new   40 old
//!        6 software_breakpoint  24 gfn   32 pending_dbg   40 u32 insn_length = 1   44 u8 type = 6
//!        7 singlestep           24 gfn
//!        8 guest_request        nothing
//!        9 debug_exception      24 gfn   32 pending_dbg   40 u32 insn_length   44 u8 type: 5 and length 1 by int1, else 3 and 0
//!       10 cpuid                24 u32 insn_length   28 u32 leaf   32 u32 subleaf
//!       12 interrupt            24 u32 vector   28 u32 type (X86_EVENTTYPE_*)   32 u32 error_code   40 cr2
//!       13 desc_access          24 u32 instr_info   32 exit_qualification   40 u8 descriptor   41 u8 is_write
//!       16 io                   24 u32 bytes   28 u16 port   30 u8 in   31 u8 str
//!  56  registers, 344 bytes: see [`Registers`]; in a response u32 length and as many bytes (SET_EMUL_READ_DATA), or
//!      16 bytes of an instruction (SET_EMUL_INSN_DATA)
//! ```
//! Flags: bit 0 VCPU_PAUSED and bit 1 FOREIGN have counterparts in [`Flags`]; EMULATE (2) and EMULATE_NOWRITE (3) are its
//! bits 5 and 6 as in Xen 4.5; what follows (4 TOGGLE_SINGLESTEP to 15) is kept 16 bits higher. DUMMY does not exist here.
//! Where a breakpoint or a single step comes without registers, `rip` is the event's; everything else
//! of the register file is zero then.

pub use super::malformed::VERSION;
use super::malformed::{Malformed, p2m_type};
use crate::control::Ring;
use crate::cpu_events::DescriptorTable;
use crate::event::{About, Cpu, Event, Flags, Request, Response};
use crate::number::{Gfn, Gla, VcpuId, ViewId};
use crate::p2m::P2mType;
pub use crate::registers::{Registers, Segment};
use crate::rights::Rights;
use crate::trap::TrapKind;
use crate::word::{high, low, pair};

/// 64-bit words in a slot of `vm_event`.
pub const WORDS: usize = 50;
/// A slot of `vm_event`.
pub type Slot = [u64; WORDS];

/// The first word of a slot that the register file takes, or of a response the data for an instruction that is emulated.
pub(crate) const DATA: usize = 7;

// `VM_EVENT_REASON_*`.
const VIOLATION: u32 = 1;
const SHARING: u32 = 2;
const PAGING: u32 = 3;
const WRITE_CTRLREG: u32 = 4;
const MOV_TO_MSR: u32 = 5;
const SOFTWARE_BREAKPOINT: u32 = 6;
const SINGLESTEP: u32 = 7;
const GUEST_REQUEST: u32 = 8;
const DEBUG_EXCEPTION: u32 = 9;
const CPUID: u32 = 10;
const INTERRUPT: u32 = 12;
const DESCRIPTOR_ACCESS: u32 = 13;
const IO_INSTRUCTION: u32 = 16;

const GLA_VALID: u32 = 8;
const FAULT_WITH_GLA: u32 = 16;
const FAULT_IN_GPT: u32 = 32;
const RIP: usize = DATA + 19;
/// Length and type (`X86_EVENTTYPE_*`) of `int3`.
const BREAKPOINT: u64 = 1 | 6 << 32;

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
    let reason = match request.event {
        Event::Violation { gfn, offset, gla, rights, in_gpt } => {
            let known = match (gla, in_gpt) {
                (None, false) => 0,
                (Some(_), false) => GLA_VALID | FAULT_WITH_GLA,
                (None, true) => FAULT_IN_GPT,
                (Some(_), true) => GLA_VALID | FAULT_IN_GPT,
            };
            let bits = u32::from(rights.bits()) | known;
            slot[3..7].copy_from_slice(&[gfn.0, offset.into(), gla.map_or(0, |gla| gla.0), bits.into()]);
            VIOLATION
        }
        Event::Sharing { gfn, p2mt } => {
            slot[3..5].copy_from_slice(&[gfn.0, p2mt as u64]);
            SHARING
        }
        Event::Paging { gfn, p2mt } => {
            slot[3..5].copy_from_slice(&[gfn.0, pair(p2mt as u32, request.flags.0 >> 1 & 3)]);
            PAGING
        }
        Event::Cpu(cpu) => write_cpu(&mut slot, cpu),
    };
    slot[0] = pair(VERSION, flags_number(request.flags));
    slot[1] = pair(reason, request.vcpu.0);
    slot[2] = request.view.0.into();
    if let Some(known) = registers {
        slot[DATA..].copy_from_slice(&known.words());
    }
    slot
}

/// Writes a CPU event's fields; its reason.
fn write_cpu(slot: &mut Slot, cpu: Cpu) -> u32 {
    let mut register = |number, new, old| {
        slot[3..6].copy_from_slice(&[number, new, old]);
        WRITE_CTRLREG
    };
    match cpu {
        Cpu::Cr0 { new, old } => register(0, new, old),
        Cpu::Cr3 { new, old } => register(1, new, old),
        Cpu::Cr4 { new, old } => register(2, new, old),
        Cpu::Xcr0 { new, old } => register(3, new, old),
        Cpu::Msr { msr, new, old } => {
            slot[3..6].copy_from_slice(&[msr.into(), new, old]);
            MOV_TO_MSR
        }
        Cpu::Int3 { rip, gfn } => {
            (slot[3], slot[5], slot[RIP]) = (gfn.0, BREAKPOINT, rip.0);
            SOFTWARE_BREAKPOINT
        }
        Cpu::Debug { rip, gfn, causes, length } => {
            let kind = if length == 0 { TrapKind::Exception } else { TrapKind::PrivilegedSoftwareException };
            (slot[3], slot[4], slot[RIP]) = (gfn.0, causes.into(), rip.0);
            slot[5] = pair(length.into(), kind as u32);
            DEBUG_EXCEPTION
        }
        Cpu::SingleStep { rip, gfn } => {
            (slot[3], slot[RIP]) = (gfn.0, rip.0);
            SINGLESTEP
        }
        Cpu::Cpuid { leaf, subleaf, length } => {
            (slot[3], slot[4]) = (pair(length.into(), leaf), subleaf.into());
            CPUID
        }
        Cpu::Descriptor { table, is_write, information, qualification } => {
            let access = table as u64 | u64::from(is_write) << 8;
            slot[3..6].copy_from_slice(&[information.into(), qualification, access]);
            DESCRIPTOR_ACCESS
        }
        Cpu::GuestRequest => GUEST_REQUEST,
        Cpu::Io { port, bytes, is_read, is_string } => {
            let access = u32::from(port) | u32::from(is_read) << 16 | u32::from(is_string) << 24;
            slot[3] = pair(bytes.into(), access);
            IO_INSTRUCTION
        }
        Cpu::Interrupt { vector, kind, error, cr2 } => {
            slot[3..6].copy_from_slice(&[pair(vector.into(), kind as u32), error.into(), cr2]);
            INTERRUPT
        }
    }
}

/// A response as a slot. One that echoes nothing gets the reason of its ring, so that its frame has a place.
#[must_use]
pub fn response(ring: Ring, response: &Response) -> Slot {
    let mut slot = match response.echo() {
        Some(echo) => request(&echo, None),
        None => {
            let reason = match ring {
                Ring::Access => VIOLATION,
                Ring::Sharing => SHARING,
                Ring::Paging => PAGING,
            };
            let mut slot = [0; WORDS];
            slot[1] = pair(reason, response.vcpu);
            slot[3] = response.subject();
            if ring == Ring::Paging {
                slot[4] = pair(0, response.flags.0 >> 1 & 3);
            }
            slot
        }
    };
    slot[0] = pair(response.other_version.unwrap_or(VERSION), flags_number(response.flags));
    slot[2] = response.view.0.into();
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
    let mut flags = read_flags(high(slot[0]));
    let gfn = Gfn(slot[3]);
    let event = match low(slot[1]) {
        VIOLATION => {
            let bits = low(slot[6]);
            Event::Violation {
                gfn,
                offset: u16::try_from(slot[4])
                    .ok()
                    .filter(|offset| *offset < 4096)
                    .ok_or(Malformed::Offset(slot[4]))?,
                gla: (bits & GLA_VALID != 0).then_some(Gla(slot[5])),
                rights: Rights::from_bits((bits & 7) as u8),
                in_gpt: bits & FAULT_IN_GPT != 0,
            }
        }
        SHARING => Event::Sharing { gfn, p2mt: p2m_type(low(slot[4]))? },
        PAGING => {
            flags.0 |= (high(slot[4]) & 3) << 1;
            Event::Paging { gfn, p2mt: p2m_type(low(slot[4]))? }
        }
        number => Event::Cpu(read_cpu(slot, number)?),
    };
    Ok(Request { flags, vcpu: VcpuId(high(slot[1])), event, view: view_of(slot) })
}

fn read_cpu(slot: &Slot, reason: u32) -> Result<Cpu, Malformed> {
    let (gfn, rip) = (Gfn(slot[3]), Gla(slot[RIP]));
    let (new, old) = (slot[4], slot[5]);
    Ok(match reason {
        WRITE_CTRLREG => match low(slot[3]) {
            0 => Cpu::Cr0 { new, old },
            1 => Cpu::Cr3 { new, old },
            2 => Cpu::Cr4 { new, old },
            3 => Cpu::Xcr0 { new, old },
            other => return Err(Malformed::Register(other)),
        },
        MOV_TO_MSR => Cpu::Msr { msr: low(slot[3]), new, old },
        SOFTWARE_BREAKPOINT => Cpu::Int3 { rip, gfn },
        DEBUG_EXCEPTION => Cpu::Debug { rip, gfn, causes: (slot[4] & 0xffff) as u16, length: (slot[5] & 0xff) as u8 },
        INTERRUPT => {
            let [vector, _, _, _, kind, ..] = slot[3].to_le_bytes();
            let kind = TrapKind::from_number(kind).ok_or(Malformed::Register(kind.into()))?;
            Cpu::Interrupt { vector, kind, error: low(slot[4]), cr2: slot[5] }
        }
        SINGLESTEP => Cpu::SingleStep { rip, gfn },
        CPUID => Cpu::Cpuid { leaf: high(slot[3]), subleaf: low(slot[4]), length: (low(slot[3]) & 0xff) as u8 },
        DESCRIPTOR_ACCESS => {
            let [table, is_write, ..] = slot[5].to_le_bytes();
            let table = DescriptorTable::from_number(table).ok_or(Malformed::Register(table.into()))?;
            Cpu::Descriptor { table, is_write: is_write != 0, information: low(slot[3]), qualification: slot[4] }
        }
        GUEST_REQUEST => Cpu::GuestRequest,
        IO_INSTRUCTION => {
            let [bytes, _, _, _, low, high, is_read, is_string] = slot[3].to_le_bytes();
            let port = u16::from_le_bytes([low, high]);
            Cpu::Io { port, bytes, is_read: is_read != 0, is_string: is_string != 0 }
        }
        other => return Err(Malformed::Reason(other)),
    })
}

/// A slot as a response. Nothing but its version is read from one of another version.
#[must_use]
pub fn read_response(slot: &Slot) -> Response {
    if low(slot[0]) != VERSION {
        let other_version = Some(low(slot[0]));
        return Response { flags: Flags::NONE, vcpu: 0, about: About::Other(0), other_version, view: ViewId::HOST };
    }
    let request = read_request(slot).or_else(|malformed| without_type(slot, malformed)).ok();
    Response {
        flags: request.map_or_else(|| read_flags(high(slot[0])), |request| request.flags),
        vcpu: high(slot[1]),
        about: request.map_or(About::Other(slot[3]), |request| About::Event(request.event)),
        other_version: None,
        view: view_of(slot),
    }
}

/// Where there is none it is noise, which nobody is to see.
fn view_of(slot: &Slot) -> ViewId {
    let is_told = read_flags(high(slot[0])).contains(Flags::ALTERNATE_P2M);
    ViewId(if is_told { (slot[2] & 0xffff) as u16 } else { 0 })
}

/// A response to a page-in whose `p2mt` is no type of Xen's: Xen does not look at it there, and reads everything else.
fn without_type(slot: &Slot, malformed: Malformed) -> Result<Request, Malformed> {
    if low(slot[1]) != PAGING {
        return Err(malformed);
    }
    let mut plain = *slot;
    plain[4] = pair(P2mType::Invalid as u32, high(slot[4]));
    read_request(&plain)
}

/// The registers in a slot.
#[must_use]
pub fn read_registers(slot: &Slot) -> Registers {
    slot.last_chunk().map(Registers::from_words).unwrap_or_default()
}
