//! The one request type and the one response type inside the engine; `wire` knows how each layout writes them.

use crate::control::CpuEventKind;
use crate::number::{Gfn, Gla, VcpuId};
use crate::p2m::P2mType;
use crate::rights::Rights;
use crate::table::table;
use bincode::{Decode, Encode};
use std::fmt;

table! {
    /// Why a request is made: the ring's type for paging and sharing, `MEM_EVENT_REASON_*` on the access ring.
    pub enum Reason {
        /// A frame is needed back, or was dropped ([`Flags::DROP_PAGE`]).
        Paging = 0 "paging",
        /// No memory for a private copy, a page-in or a first touch.
        Sharing = 1 "sharing",
        /// The p2m's access rights forbid an access.
        Violation = 2 "violation",
        /// CR0 was written; `gfn` is the new value, `gla` the old one.
        Cr0 = 3 "cr0",
        /// CR3 was written.
        Cr3 = 4 "cr3",
        /// CR4 was written.
        Cr4 = 5 "cr4",
        /// A breakpoint instruction is about to be delivered.
        Int3 = 6 "int3",
        /// One instruction was executed.
        SingleStep = 7 "single-step",
        /// A model-specific register was written; `gfn` is the value, `gla` the register's number.
        Msr = 8 "msr",
    }
}

impl Reason {
    /// The CPU event that it tells of.
    #[inline(always)]
    #[must_use]
    pub const fn cpu_event(self) -> Option<CpuEventKind> {
        match self {
            Reason::Paging | Reason::Sharing | Reason::Violation => None,
            Reason::Cr0 => Some(CpuEventKind::Cr0),
            Reason::Cr3 => Some(CpuEventKind::Cr3),
            Reason::Cr4 => Some(CpuEventKind::Cr4),
            Reason::Int3 => Some(CpuEventKind::Int3),
            Reason::SingleStep => Some(CpuEventKind::SingleStep),
            Reason::Msr => Some(CpuEventKind::Msr),
        }
    }
}

impl CpuEventKind {
    /// The reason of its requests.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            CpuEventKind::Cr0 => Reason::Cr0,
            CpuEventKind::Cr3 => Reason::Cr3,
            CpuEventKind::Cr4 => Reason::Cr4,
            CpuEventKind::Msr => Reason::Msr,
            CpuEventKind::Int3 => Reason::Int3,
            CpuEventKind::SingleStep => Reason::SingleStep,
        }
    }
}

/// The flags of a request or response, with the bit numbers of `MEM_EVENT_FLAG_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct Flags(pub u32);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// The vCPU of the event is stopped until a response carries this flag too.
    pub const VCPU_PAUSED: Flags = Flags(1 << 0);
    /// The frame is gone; forget its content.
    pub const DROP_PAGE: Flags = Flags(1 << 1);
    /// The frame was touched between nominate and evict: eviction will fail.
    pub const EVICT_FAIL: Flags = Flags(1 << 2);
    /// The accessor is no vCPU of the domain.
    pub const FOREIGN: Flags = Flags(1 << 3);
    /// A response that only gives its slot back.
    pub const DUMMY: Flags = Flags(1 << 4);
    /// A response that asks for the access to be emulated (Xen 4.5 on).
    pub const EMULATE: Flags = Flags(1 << 5);
    /// The same without letting its writes through.
    pub const EMULATE_NOWRITE: Flags = Flags(1 << 6);
    /// A response that turns single step over for its vCPU (`vm_event` only; bit 4 there).
    pub const TOGGLE_SINGLESTEP: Flags = Flags(1 << 20);

    /// All flags with their names.
    pub const NAMES: [(Flags, &'static str); 8] = [
        (Flags::VCPU_PAUSED, "VCPU_PAUSED"),
        (Flags::DROP_PAGE, "DROP_PAGE"),
        (Flags::EVICT_FAIL, "EVICT_FAIL"),
        (Flags::FOREIGN, "FOREIGN"),
        (Flags::DUMMY, "DUMMY"),
        (Flags::EMULATE, "EMULATE"),
        (Flags::EMULATE_NOWRITE, "EMULATE_NOWRITE"),
        (Flags::TOGGLE_SINGLESTEP, "TOGGLE_SINGLESTEP"),
    ];

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        let mut separator = "";
        for (flag, name) in Flags::NAMES {
            if rest & flag.0 != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
                rest &= !flag.0;
            }
        }
        if rest != 0 {
            write!(f, "{separator}{rest:#x}")?;
        }
        Ok(())
    }
}

/// What the engine tells a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Request {
    /// Why.
    pub reason: Reason,
    /// Flags.
    pub flags: Flags,
    /// The vCPU of the event; 0 and without meaning for foreign requests.
    pub vcpu: VcpuId,
    /// The frame; for CPU events the new value of the register.
    pub gfn: Gfn,
    /// The offset in the frame, 0 to 4095.
    pub offset: u16,
    /// The linear address, where it is known; for CPU events see [`Reason`].
    pub gla: Option<Gla>,
    /// The frame's type before the request (paging, sharing); `RamRw` on the access ring, as in Xen.
    pub p2mt: P2mType,
    /// What the access wanted; empty but for violations.
    pub rights: Rights,
}

impl Request {
    /// The ordinary answer: everything echoed, as `xen-access` and `xenpaging` do.
    #[must_use]
    #[inline(always)]
    pub fn answer(&self) -> Response {
        Response { flags: self.flags, vcpu: self.vcpu.0, gfn: self.gfn, request: Some(*self), other_version: None }
    }
}

/// What a consumer tells the engine, as read from the page: nothing in it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Response {
    /// Flags; bits that Xen does not know are kept.
    pub flags: Flags,
    /// The vCPU, which may not exist.
    pub vcpu: u32,
    /// The frame, which may not exist.
    pub gfn: Gfn,
    /// The rest of the request that a consumer echoes; what is none of Xen's reasons reads back as `None`.
    pub request: Option<Request>,
    /// The version of a `vm_event` response that is not the ring's: nothing else of it was read, only its slot is freed.
    pub other_version: Option<u32>,
}

impl Response {
    /// The request as the consumer echoes it: with this response's flags, vCPU and frame.
    #[must_use]
    #[inline(always)]
    pub fn echo(&self) -> Option<Request> {
        self.request.map(|request| Request { flags: self.flags, vcpu: VcpuId(self.vcpu), gfn: self.gfn, ..request })
    }
}
