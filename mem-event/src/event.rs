//! The one event type, the one request type and the one response type inside the engine; `wire` flattens them to Xen's structs.

use crate::cpu_events::{CpuEventKind, DescriptorTable};
pub use crate::flags::Flags;
use crate::number::{Gfn, Gla, VcpuId, ViewId};
use crate::p2m::P2mType;
use crate::rights::Rights;
use crate::trap::TrapKind;
use bincode::{Decode, Encode};
use std::fmt;

/// What a consumer is told of, with the fields of its kind. In Xen one struct has room for all of them and `reason` says which count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Event {
    /// A frame is needed back, or was dropped ([`Flags::DROP_PAGE`]).
    Paging {
        /// The frame.
        gfn: Gfn,
        /// Its type before the request.
        p2mt: P2mType,
    },
    /// No memory for a private copy, a page-in or a first touch.
    Sharing {
        /// The frame.
        gfn: Gfn,
        /// Its type before the request.
        p2mt: P2mType,
    },
    /// The p2m's access rights forbid an access.
    Violation {
        /// The frame.
        gfn: Gfn,
        /// The offset in the frame, 0 to 4095.
        offset: u16,
        /// The linear address, where it is known.
        gla: Option<Gla>,
        /// What the access wanted.
        rights: Rights,
        /// The walk of the guest's page tables made it, and no access of the linear address itself (Xen's `npfec_kind_in_gpt`).
        in_gpt: bool,
    },
    /// Something happened to a vCPU's registers or instruction stream.
    Cpu(Cpu),
}

/// What happened to a vCPU's registers or instruction stream, as its listener is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Cpu {
    /// CR0 is about to be written.
    Cr0 {
        /// Its value then.
        new: u64,
        /// Its value before.
        old: u64,
    },
    /// CR3 is about to be written.
    Cr3 {
        /// Its value then.
        new: u64,
        /// Its value before.
        old: u64,
    },
    /// CR4 is about to be written.
    Cr4 {
        /// Its value then.
        new: u64,
        /// Its value before.
        old: u64,
    },
    /// A model-specific register is about to be written.
    Msr {
        /// The register's number.
        msr: u32,
        /// Its value then.
        new: u64,
        /// Its value before; 0 where it is not known, and in the layouts that do not carry it.
        old: u64,
    },
    /// A breakpoint instruction is about to be delivered.
    Int3 {
        /// The instruction's linear address.
        rip: Gla,
        /// The frame of that address; 0 where it is not known.
        gfn: Gfn,
    },
    /// A debug exception is about to be delivered.
    Debug {
        /// The linear address of `int1`, or where the vCPU stands: behind the instruction that was stepped or touched data, before the one that a
        /// debug register names.
        rip: Gla,
        /// The frame of that address; 0 where it is not known.
        gfn: Gfn,
        /// What DR6 says of its causes: B0 to B3, BD and BS; 0 of `int1`, and in the layouts that do not carry it.
        causes: u16,
        /// How many bytes `int1` has, 0 where no instruction raised it, and in the layouts that do not carry it.
        length: u8,
    },
    /// One instruction was executed.
    SingleStep {
        /// The next instruction's linear address.
        rip: Gla,
        /// The frame of that address; 0 where it is not known.
        gfn: Gfn,
    },
    /// `cpuid` is about to be executed. In the layout of `vm_event` the request's registers hold what it returns, as in Xen.
    Cpuid {
        /// What is asked for: EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
        /// How many bytes the instruction has.
        length: u8,
    },
    /// The register of a descriptor table, or the task's, is about to be stored or loaded.
    Descriptor {
        /// Which.
        table: DescriptorTable,
        /// It is loaded.
        is_write: bool,
        /// What Intel's processors say of the instruction: its operand, in the bits of the VM-exit instruction-information field.
        information: u32,
        /// The displacement of its operand in memory; 0 in the layouts that do not carry it.
        qualification: u64,
    },
    /// The guest asks for an event.
    GuestRequest,
    /// A port is about to be read or written.
    Io {
        /// The port.
        port: u16,
        /// How many bytes at a time.
        bytes: u8,
        /// It is read.
        is_read: bool,
        /// By a string instruction.
        is_string: bool,
    },
    /// XCR0 is about to be written.
    Xcr0 {
        /// Its value then.
        new: u64,
        /// Its value before.
        old: u64,
    },
    /// An interrupt or exception is about to be delivered.
    Interrupt {
        /// Its vector.
        vector: u8,
        /// What it is delivered as.
        kind: TrapKind,
        /// Its error code; 0 where its vector has none.
        error: u32,
        /// CR2, of a page fault.
        cr2: u64,
    },
}

/// The kind of an event: the ring's type for paging and sharing, `MEM_EVENT_REASON_*` on the access ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// [`Event::Paging`].
    Paging,
    /// [`Event::Sharing`].
    Sharing,
    /// [`Event::Violation`].
    Violation,
    /// [`Event::Cpu`].
    Cpu(CpuEventKind),
}

impl Reason {
    /// All: paging, sharing, violations, then every kind of CPU event.
    pub const ALL: [Reason; 3 + CpuEventKind::ALL.len()] = {
        let mut all = [Reason::Paging; 3 + CpuEventKind::ALL.len()];
        all[1] = Reason::Sharing;
        all[2] = Reason::Violation;
        let mut kind = 0;
        while kind < CpuEventKind::ALL.len() {
            all[3 + kind] = Reason::Cpu(CpuEventKind::ALL[kind]);
            kind += 1;
        }
        all
    };

    /// The name in files, JSON and CSV.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Paging => "paging",
            Reason::Sharing => "sharing",
            Reason::Violation => "violation",
            Reason::Cpu(kind) => kind.name(),
        }
    }

    /// The reason with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Cpu {
    /// Its kind.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> CpuEventKind {
        match self {
            Cpu::Cr0 { .. } => CpuEventKind::Cr0,
            Cpu::Cr3 { .. } => CpuEventKind::Cr3,
            Cpu::Cr4 { .. } => CpuEventKind::Cr4,
            Cpu::Xcr0 { .. } => CpuEventKind::Xcr0,
            Cpu::Msr { .. } => CpuEventKind::Msr,
            Cpu::Int3 { .. } => CpuEventKind::Int3,
            Cpu::SingleStep { .. } => CpuEventKind::SingleStep,
            Cpu::Debug { .. } => CpuEventKind::Debug,
            Cpu::Cpuid { .. } => CpuEventKind::Cpuid,
            Cpu::Descriptor { .. } => CpuEventKind::Descriptor,
            Cpu::GuestRequest => CpuEventKind::GuestRequest,
            Cpu::Io { .. } => CpuEventKind::Io,
            Cpu::Interrupt { .. } => CpuEventKind::Interrupt,
        }
    }
}

impl Event {
    /// Its kind.
    #[inline(always)]
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Event::Paging { .. } => Reason::Paging,
            Event::Sharing { .. } => Reason::Sharing,
            Event::Violation { .. } => Reason::Violation,
            Event::Cpu(cpu) => Reason::Cpu(cpu.kind()),
        }
    }

    /// The frame that it is about; none of a CPU event.
    #[inline(always)]
    #[must_use]
    pub const fn frame(&self) -> Option<Gfn> {
        match self {
            Event::Paging { gfn, .. } | Event::Sharing { gfn, .. } | Event::Violation { gfn, .. } => Some(*gfn),
            Event::Cpu(_) => None,
        }
    }

    /// What the access wanted; nothing but for violations.
    #[must_use]
    pub const fn rights(&self) -> Rights {
        match self {
            Event::Violation { rights, .. } => *rights,
            _ => Rights::NONE,
        }
    }

    /// The type of the frame before the event; `p2m_ram_rw` on the access ring, as in Xen.
    #[inline(always)]
    #[must_use]
    pub const fn p2mt(&self) -> P2mType {
        match self {
            Event::Paging { p2mt, .. } | Event::Sharing { p2mt, .. } => *p2mt,
            Event::Violation { .. } | Event::Cpu(_) => P2mType::RamRw,
        }
    }

    /// By what an answer names the event, besides the vCPU: what Xen's struct has in its field `gfn`. The frame; of a register's event
    /// its new value; of `cpuid` the leaf; of a descriptor table's what is known of the instruction; the port.
    #[inline(always)]
    #[must_use]
    pub const fn subject(&self) -> u64 {
        match self {
            Event::Paging { gfn, .. } | Event::Sharing { gfn, .. } | Event::Violation { gfn, .. } => gfn.0,
            Event::Cpu(
                Cpu::Cr0 { new, .. }
                | Cpu::Cr3 { new, .. }
                | Cpu::Cr4 { new, .. }
                | Cpu::Xcr0 { new, .. }
                | Cpu::Msr { new, .. },
            ) => *new,
            Event::Cpu(Cpu::Int3 { gfn, .. } | Cpu::Debug { gfn, .. } | Cpu::SingleStep { gfn, .. }) => gfn.0,
            Event::Cpu(Cpu::Cpuid { leaf, .. }) => *leaf as u64,
            Event::Cpu(Cpu::Descriptor { information, .. }) => *information as u64,
            Event::Cpu(Cpu::GuestRequest) => 0,
            Event::Cpu(Cpu::Io { port, .. }) => *port as u64,
            Event::Cpu(Cpu::Interrupt { vector, .. }) => *vector as u64,
        }
    }
}

/// What the engine tells a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Request {
    /// Flags.
    pub flags: Flags,
    /// The vCPU of the event; 0 and without meaning for foreign requests.
    pub vcpu: VcpuId,
    /// What happened.
    pub event: Event,
    /// The view that its vCPU goes by, with [`Flags::ALTERNATE_P2M`].
    pub view: ViewId,
}

impl Request {
    /// The ordinary answer: everything echoed, as `xen-access` and `xenpaging` do, but for the view: it may be another one by then, which an answer
    /// would turn back.
    #[must_use]
    #[inline(always)]
    pub fn answer(&self) -> Response {
        let flags = self.flags.without(Flags::ALTERNATE_P2M);
        let about = About::Event(self.event);
        Response { flags, vcpu: self.vcpu.0, about, other_version: None, view: ViewId::HOST }
    }

    /// The frame that it is about; none of a CPU event.
    #[inline(always)]
    #[must_use]
    pub const fn frame(&self) -> Option<Gfn> {
        self.event.frame()
    }
}

/// What a response is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum About {
    /// The event of a request, which the consumer echoes.
    Event(Event),
    /// What is no event of Xen's: what stands in the slot's field `gfn`.
    Other(u64),
}

/// What a consumer tells the engine, as read from the page: nothing in it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Response {
    /// Flags; bits that Xen does not know are kept.
    pub flags: Flags,
    /// The vCPU, which may not exist.
    pub vcpu: u32,
    /// What it is about; the frame may not exist.
    pub about: About,
    /// The version of a `vm_event` response that is not the ring's: nothing else of it was read, only its slot is freed.
    pub other_version: Option<u32>,
    /// The view that its vCPU goes by from now on, with [`Flags::ALTERNATE_P2M`].
    pub view: ViewId,
}

impl Response {
    /// The same, with its vCPU to go by this view from now on.
    #[must_use]
    pub const fn switching_to(self, view: ViewId) -> Response {
        Response { view, ..self.with(Flags::ALTERNATE_P2M) }
    }

    /// The same, with its vCPU to do one step of which nobody is told, and to go by this view then. Of the event that it answers it names the vCPU alone:
    /// the view stands in the place of the rest.
    #[must_use]
    pub const fn stepping_into(self, view: ViewId) -> Response {
        Response { about: About::Other(view.0 as u64), ..self.with(Flags::FAST_SINGLESTEP) }
    }

    /// The same with further flags.
    #[must_use]
    pub const fn with(self, flags: Flags) -> Response {
        Response { flags: self.flags.union(flags), ..self }
    }

    /// The request as the consumer echoes it: with this response's flags and vCPU.
    #[must_use]
    #[inline(always)]
    pub fn echo(&self) -> Option<Request> {
        match self.about {
            About::Event(event) => Some(Request { flags: self.flags, vcpu: VcpuId(self.vcpu), event, view: self.view }),
            About::Other(_) => None,
        }
    }

    /// By what it names the event that it answers: see [`Event::subject`].
    #[inline(always)]
    #[must_use]
    pub const fn subject(&self) -> u64 {
        match &self.about {
            About::Event(event) => event.subject(),
            About::Other(subject) => *subject,
        }
    }
}
