//! What the engine is told.

use crate::control::{Control, Ring};
use crate::cpu_events::CpuEventKind;
use crate::number::{Gfn, Gla, VcpuId};
use crate::page::RingPage;
use crate::registers::Registers;
use crate::rights::Rights;
use bincode::{Decode, Encode};

/// A domain's fixed facts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DomainConfig {
    /// Number of vCPUs, 1 to 4096.
    pub vcpus: u32,
    /// The frames that are RAM, as `(first, count)` in ascending order without overlap.
    pub ram: Vec<(Gfn, u64)>,
    /// Hardware-assisted paging (Xen refuses paging and access rings without it: ENODEV).
    pub hap: bool,
    /// A device is passed through (Xen refuses the paging ring: EMLINK).
    pub passthrough: bool,
    /// The domain was built with populate-on-demand entries (Xen refuses the paging ring: EXDEV).
    pub populate_on_demand: bool,
}

impl DomainConfig {
    /// A domain as most are: with hardware-assisted paging, no device passed through, and all of its memory there from the start.
    #[must_use]
    pub fn new(vcpus: u32, ram: Vec<(Gfn, u64)>) -> DomainConfig {
        DomainConfig { vcpus, ram, hap: true, passthrough: false, populate_on_demand: false }
    }
}

/// How an access came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum AccessSource {
    /// An instruction's own data access or fetch.
    Instruction,
    /// The walk of the guest's page tables, or their accessed and dirty bits.
    PageWalk,
    /// The processor's own otherwise: the delivery of an interrupt, a descriptor; or it is not known what.
    Processor,
}

/// One access to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Access {
    /// The frame.
    pub gfn: Gfn,
    /// Offset of the access's first byte in the frame, 0 to 4095.
    pub offset: u16,
    /// The linear address, where it is known.
    pub gla: Option<Gla>,
    /// What is wanted: one or more of r, w, x (a read-modify-write wants rw).
    pub rights: Rights,
    /// What made the access.
    pub source: AccessSource,
    /// The linear address of the instruction, or of the one before which the processor did it by itself; 0 where it is not known. For
    /// reports only.
    pub rip: u64,
}

/// Something that happened to a vCPU's registers or instruction stream.
///
/// | kind | `value` | `old` | `number` |
/// |---|---|---|---|
/// | CR0, CR3, CR4, XCR0 | the new value | the old one | |
/// | MSR | the new value | the old one | the register's |
/// | CPUID | the leaf | the subleaf | how many bytes the instruction has |
/// | descriptor | what is known of the instruction | its displacement | [`crate::DescriptorTable::packed`] |
/// | I/O | the port | | [`crate::cpu_events::packed_port_access`] |
/// | debug exception | its causes by DR6 | | how many bytes `int1` has, 0 where no instruction raised it |
/// | interrupt | CR2, of a page fault | the error code | [`crate::TrapKind::packed`] |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct CpuEvent {
    /// What.
    pub kind: CpuEventKind,
    /// See the table; 0 for a kind that has none.
    pub value: u64,
    /// Likewise.
    pub old: u64,
    /// Likewise.
    pub number: u32,
    /// The instruction's linear address.
    pub rip: Gla,
    /// The frame of that address; 0 where it is not known.
    pub gfn: Gfn,
}

/// What comes with a step beside its input. It is good for that one step and is not recorded: what the engine decides does not depend
/// on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct With<'a> {
    /// The page on which `Enable` builds its ring; without one the engine takes memory of its own.
    pub page: Option<&'a RingPage>,
    /// The registers of the vCPU whose step this is: a request that the step puts on an access ring in the layout of `vm_event` carries
    /// them, also when it is put again for a consumer's successor. They are kept beside the state, until the answer: a restored domain has
    /// none of requests that were out.
    pub registers: Option<&'a Registers>,
    /// `Kick` takes responses up to this producer index, as if the page said so: for a caller that has to do something before later
    /// ones are taken. The caller must poll the page again after the step.
    pub until: Option<u32>,
}

impl With<'_> {
    /// Nothing comes with the step.
    pub const NOTHING: With<'static> = With { page: None, registers: None, until: None };

    /// The page of a ring that the step enables.
    #[must_use]
    pub const fn page(page: &RingPage) -> With<'_> {
        With { page: Some(page), registers: None, until: None }
    }
}

/// One step of the engine: everything that can change its state is one of these, so a list of them replays a run.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Input {
    /// A vCPU is about to access a frame, or retries after a wake.
    Access {
        /// Who.
        vcpu: VcpuId,
        /// What.
        access: Access,
    },
    /// A foreign caller is about to access a frame, or retries.
    Foreign {
        /// What.
        access: Access,
    },
    /// The consumer's end of a ring's event channel was signalled.
    Kick {
        /// The ring.
        ring: Ring,
    },
    /// A control operation.
    Control(Control),
    /// A CPU event, or the same once more after a wake. A register still has its old value, and is written after `Proceed`; a breakpoint
    /// is not delivered yet, and `Proceed` means that the guest gets it, `Retry` that its instruction is fetched again.
    CpuEvent {
        /// Who.
        vcpu: VcpuId,
        /// What.
        event: CpuEvent,
    },
    /// A vCPU gives a frame of its own back (ballooning in guest context): it may have to wait, and then says so again.
    Balloon {
        /// Who.
        vcpu: VcpuId,
        /// The frame.
        gfn: Gfn,
    },
    /// A vCPU does something else than it queued for (it took an interrupt and runs on, it was reset): it gives up its place,
    /// and what was reserved for it. What it wants later it asks for anew. A request that is out is not taken back.
    Abandon {
        /// Who.
        vcpu: VcpuId,
    },
    /// Frames that hold no memory yet (found when paging begins): the first touch populates them.
    Unpopulated {
        /// First frame.
        first: Gfn,
        /// How many.
        count: u64,
    },
    /// The effect `Fill` of this frame could not be carried out: its page-in is undone and the pager told EFAULT.
    FillFailed {
        /// The frame.
        gfn: Gfn,
    },
    /// The consumer of a ring is gone without disabling it (its socket closed).
    ConsumerLost {
        /// The ring.
        ring: Ring,
    },
    /// The domain is being torn down.
    Destroy,
    /// A vCPU's access by a caller that holds a lock, and so must not stand in a queue (Xen's nosleep claims): where it would
    /// have to, `Outcome::Retry` and nothing has changed. A request that is made pauses the vCPU as ever: it stops when the
    /// caller has let go of the lock.
    AccessNosleep {
        /// Who.
        vcpu: VcpuId,
        /// What.
        access: Access,
    },
    /// A vCPU has done the instruction that it was to do alone (`Outcome::Alone`), as far as a guest's fault let it.
    Emulated {
        /// Who.
        vcpu: VcpuId,
    },
    /// The machine is reset, or gets a state that was saved: no vCPU stands any more where it did, and answers to what they asked come too
    /// late. Rights, frames and rings stay.
    Reset,
}

impl Input {
    /// The input's kind in JSON and CSV: of a control operation and of a CPU event its own name.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Input::Access { .. } => "access",
            Input::Foreign { .. } => "foreign",
            Input::Kick { .. } => "kick",
            Input::Control(control) => control.name(),
            Input::CpuEvent { event, .. } => event.kind.name(),
            Input::Balloon { .. } => "balloon",
            Input::Abandon { .. } => "abandon",
            Input::Unpopulated { .. } => "unpopulated",
            Input::FillFailed { .. } => "fill-failed",
            Input::ConsumerLost { .. } => "consumer-lost",
            Input::Destroy => "destroy",
            Input::AccessNosleep { .. } => "access-nosleep",
            Input::Emulated { .. } => "emulated",
            Input::Reset => "reset",
        }
    }

    /// Every kind that [`Input::kind`] tells.
    #[must_use]
    pub fn kinds() -> Vec<&'static str> {
        let own = [
            "access",
            "access-nosleep",
            "foreign",
            "kick",
            "balloon",
            "abandon",
            "unpopulated",
            "fill-failed",
            "consumer-lost",
            "destroy",
            "emulated",
            "reset",
        ];
        let events = CpuEventKind::ALL.iter().map(|kind| kind.name());
        let mut all: Vec<&str> = own.into_iter().chain(Control::NAMES).chain(events).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
