//! A request in four whole words, as it is kept until its answer.
//!
//! On the hot path it is written from registers and compared by two loads. A copy of a [`Request`] would have to wait until its
//! many small stores have reached the cache.

use crate::cpu_events::{CpuEventKind, DescriptorTable, packed_port_access, unpacked_port_access};
use crate::event::{Cpu, Event, Flags, Request};
use crate::number::{Gfn, Gla, VcpuId, ViewId};
use crate::p2m::P2mType;
use crate::rights::Rights;
use crate::trap::TrapKind;
use crate::word::{high, low, pair};
use bincode::{Decode, Encode};
use std::collections::VecDeque;

/// See the module. `rest` holds, from the lowest byte: offset (2), rights, kind, p2m type, whether the second value is known and whether a
/// walk made it; of a model-specific register its number in the upper half, of a descriptor table which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Packed {
    /// Flags in the lower half, above them the vCPU, below 65536, and its view.
    head: u64,
    /// [`Event::subject`].
    subject: u64,
    /// The linear address, or the register's old value.
    second: u64,
    rest: u64,
}

const PAGING: u8 = 0;
const SHARING: u8 = 1;
const VIOLATION: u8 = 2;
/// A CPU event's kind is counted from here on.
const CPU: u8 = 3;
const MSR: u8 = CPU + CpuEventKind::Msr as u8;
const DESCRIPTOR: u8 = CPU + CpuEventKind::Descriptor as u8;
const DEBUG: u8 = CPU + CpuEventKind::Debug as u8;
const INTERRUPT: u8 = CPU + CpuEventKind::Interrupt as u8;

impl Packed {
    /// No request: what stands in a place before one does.
    pub const NOTHING: Packed = Packed { head: 0, subject: 0, second: 0, rest: 0 };

    #[inline(always)]
    pub fn new(request: &Request) -> Packed {
        let (kind, second, small) = match request.event {
            Event::Paging { p2mt, .. } => (PAGING, 0, (p2mt as u64) << 32),
            Event::Sharing { p2mt, .. } => (SHARING, 0, (p2mt as u64) << 32),
            Event::Violation { offset, gla, rights, in_gpt, .. } => {
                let known = u64::from(gla.is_some()) << 40 | u64::from(in_gpt) << 41;
                let small = u64::from(offset) | u64::from(rights.bits()) << 16 | known;
                (VIOLATION, gla.map_or(0, |gla| gla.0), small)
            }
            Event::Cpu(Cpu::Msr { msr, old, .. }) => (MSR, old, u64::from(msr) << 32),
            Event::Cpu(Cpu::Descriptor { table, is_write, qualification, .. }) => {
                (DESCRIPTOR, qualification, u64::from(table.packed(is_write)) << 32)
            }
            Event::Cpu(Cpu::Debug { rip, causes, length, .. }) => {
                (DEBUG, rip.0, (u64::from(causes) | u64::from(length) << 16) << 32)
            }
            Event::Cpu(Cpu::Interrupt { vector, kind, error, cr2 }) => {
                (INTERRUPT, cr2, u64::from(error) << 32 | u64::from(kind.packed(vector)) >> 8)
            }
            Event::Cpu(cpu) => (CPU + cpu.kind() as u8, second_value(cpu), 0),
        };
        Packed {
            head: u64::from(request.flags.0)
                | u64::from(request.vcpu.0 & 0xffff) << 32
                | u64::from(request.view.0) << 48,
            subject: request.event.subject(),
            second,
            rest: small | u64::from(kind) << 24,
        }
    }

    /// Appends a request. It is made where it is to stand: handed over whole it would be written in words and read again in larger pieces at once,
    /// which waits.
    #[inline(always)]
    pub fn append(list: &mut VecDeque<Packed>, request: &Request) {
        list.push_back(Packed::NOTHING);
        if let Some(last) = list.back_mut() {
            *last = Packed::new(request);
        }
    }

    /// As words.
    #[inline(always)]
    pub fn words(&self) -> [u64; 4] {
        [self.head, self.subject, self.second, self.rest]
    }

    /// Of words, which may be no request: see [`Packed::is_whole`].
    #[inline(always)]
    pub fn from_words([head, subject, second, rest]: [u64; 4]) -> Packed {
        Packed { head, subject, second, rest }
    }

    #[inline(always)]
    pub fn flags(&self) -> Flags {
        Flags((self.head & 0xffff_ffff) as u32)
    }

    /// Whether it is about an access that the rights forbid.
    pub fn is_violation(&self) -> bool {
        let [_, _, _, kind, ..] = self.rest.to_le_bytes();
        kind == VIOLATION
    }

    /// Its layout has no room for its vCPU's view.
    pub fn forgets_view(&mut self) {
        self.head &= 0xffff_ffff_ffff & !u64::from(Flags::ALTERNATE_P2M.0);
    }

    /// It stops no vCPU any more. That it did stays in it: its answer will say so, and must not be taken for that of a later event.
    pub fn becomes_foreign(&mut self) {
        if self.flags().contains(Flags::VCPU_PAUSED) {
            self.head |= u64::from(Flags::FOREIGN.0);
        }
    }

    #[inline(always)]
    pub fn vcpu(&self) -> u32 {
        (self.head >> 32 & 0xffff) as u32
    }

    /// The frame of an event that is about one; of another event no frame's number, but its subject.
    #[inline(always)]
    pub fn gfn(&self) -> Gfn {
        Gfn(self.subject)
    }

    /// [`Event::subject`].
    #[inline(always)]
    pub fn subject(&self) -> u64 {
        self.subject
    }

    /// Whether a response with these fields is the answer.
    #[inline(always)]
    pub fn is_answered_by(&self, flags: Flags, vcpu: u32, subject: u64) -> bool {
        let pauses = Flags::VCPU_PAUSED;
        self.subject == subject && self.vcpu() == vcpu && self.flags().contains(pauses) == flags.contains(pauses)
    }

    /// Whether the words are a request, as those that came from a file may not be.
    pub fn is_whole(&self) -> bool {
        self.event().is_some()
    }

    /// The request.
    ///
    /// # Panics
    /// When the words are none: they were made of one, or [`Packed::is_whole`] was asked.
    pub fn request(&self) -> Request {
        let Some(event) = self.event() else { panic!("{self:x?} is no request") };
        Request { flags: self.flags(), vcpu: VcpuId(self.vcpu()), event, view: ViewId((self.head >> 48) as u16) }
    }

    fn event(&self) -> Option<Event> {
        let [_, _, rights, kind, p2mt, known, ..] = self.rest.to_le_bytes();
        let (gfn, p2mt) = (self.gfn(), P2mType::from_number(p2mt));
        match kind {
            PAGING => Some(Event::Paging { gfn, p2mt: p2mt? }),
            SHARING => Some(Event::Sharing { gfn, p2mt: p2mt? }),
            VIOLATION => {
                let gla = (known & 1 == 1).then_some(Gla(self.second));
                let (offset, rights) = ((self.rest & 0xfff) as u16, Rights::from_bits(rights));
                Some(Event::Violation { gfn, offset, gla, rights, in_gpt: known & 2 != 0 })
            }
            MSR => {
                let msr = (self.rest >> 32) as u32;
                Some(Event::Cpu(Cpu::Msr { msr, new: self.subject, old: self.second }))
            }
            DESCRIPTOR => {
                let (table, is_write) = DescriptorTable::unpacked(high(self.rest));
                let information = low(self.subject);
                Some(Event::Cpu(Cpu::Descriptor { table, is_write, information, qualification: self.second }))
            }
            DEBUG => {
                let [_, _, _, _, low, high, length, _] = self.rest.to_le_bytes();
                let causes = u16::from_le_bytes([low, high]);
                Some(Event::Cpu(Cpu::Debug { rip: Gla(self.second), gfn, causes, length }))
            }
            INTERRUPT => {
                let (vector, kind) = TrapKind::unpacked(low(self.subject & 0xff | self.rest << 8 & 0xff00));
                Some(Event::Cpu(Cpu::Interrupt { vector, kind, error: high(self.rest), cr2: self.second }))
            }
            cpu => {
                CpuEventKind::from_number(cpu - CPU).map(|kind| Event::Cpu(cpu_event(kind, self.subject, self.second)))
            }
        }
    }
}

/// Besides its subject a CPU event has one value in Xen's 40 bytes: the old value of the register, the number of a model-specific one,
/// the instruction's linear address, or the subleaf of `cpuid` with the instruction's length above it, which table
/// is accessed and how, how the port is, an interrupt's error code with what it is delivered as above it.
#[inline(always)]
pub(crate) fn second_value(cpu: Cpu) -> u64 {
    match cpu {
        Cpu::Cr0 { old, .. } | Cpu::Cr3 { old, .. } | Cpu::Cr4 { old, .. } | Cpu::Xcr0 { old, .. } => old,
        Cpu::Msr { msr, .. } => msr.into(),
        Cpu::Int3 { rip, .. } | Cpu::Debug { rip, .. } | Cpu::SingleStep { rip, .. } => rip.0,
        Cpu::Cpuid { subleaf, length, .. } => pair(subleaf, length.into()),
        Cpu::Descriptor { table, is_write, .. } => table.packed(is_write).into(),
        Cpu::GuestRequest => 0,
        Cpu::Io { bytes, is_read, is_string, .. } => packed_port_access(bytes, is_read, is_string).into(),
        Cpu::Interrupt { kind, error, .. } => pair(error, kind.packed(0)),
    }
}

/// The CPU event of a kind with this subject and this second value.
#[inline(always)]
pub(crate) fn cpu_event(kind: CpuEventKind, subject: u64, second: u64) -> Cpu {
    let (gfn, rip) = (Gfn(subject), Gla(second));
    match kind {
        CpuEventKind::Cr0 => Cpu::Cr0 { new: subject, old: second },
        CpuEventKind::Cr3 => Cpu::Cr3 { new: subject, old: second },
        CpuEventKind::Cr4 => Cpu::Cr4 { new: subject, old: second },
        CpuEventKind::Xcr0 => Cpu::Xcr0 { new: subject, old: second },
        CpuEventKind::Msr => Cpu::Msr { msr: low(second), new: subject, old: 0 },
        CpuEventKind::Int3 => Cpu::Int3 { rip, gfn },
        CpuEventKind::Debug => Cpu::Debug { rip, gfn, causes: 0, length: 0 },
        CpuEventKind::SingleStep => Cpu::SingleStep { rip, gfn },
        CpuEventKind::Cpuid => {
            Cpu::Cpuid { leaf: low(subject), subleaf: low(second), length: (high(second) & 0xff) as u8 }
        }
        CpuEventKind::Descriptor => {
            let (table, is_write) = DescriptorTable::unpacked(low(second));
            Cpu::Descriptor { table, is_write, information: low(subject), qualification: 0 }
        }
        CpuEventKind::GuestRequest => Cpu::GuestRequest,
        CpuEventKind::Io => {
            let (bytes, is_read, is_string) = unpacked_port_access(low(second));
            Cpu::Io { port: (subject & 0xffff) as u16, bytes, is_read, is_string }
        }
        CpuEventKind::Interrupt => {
            let (_, kind) = TrapKind::unpacked(high(second));
            Cpu::Interrupt { vector: (subject & 0xff) as u8, kind, error: low(second), cr2: 0 }
        }
    }
}
