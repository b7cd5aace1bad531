//! Control operations and their arguments (Xen's domctl 56, `XENMEM_paging_op`, `XENMEM_access_op`, `XENMEM_sharing_op`).

use crate::number::{Gfn, VcpuId};
use crate::rights::AccessType;
use bincode::{Decode, Encode};
use std::fmt;

/// The three channels, with Xen's mode numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[repr(u8)]
pub enum Ring {
    /// The pager's.
    Paging = 1,
    /// The access listener's (`monitor` from Xen 4.5 on).
    Access = 2,
    /// The out-of-memory helper's.
    Sharing = 3,
}

impl Ring {
    /// All three.
    pub const ALL: [Ring; 3] = [Ring::Paging, Ring::Access, Ring::Sharing];

    /// 0 to 2, for arrays with one entry a ring.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize - 1
    }

    /// The ring with Xen's mode number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Ring> {
        Ring::ALL.into_iter().find(|ring| *ring as u8 == number)
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["paging", "access", "sharing"][self.index()])
    }
}

/// How a slot's bytes are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[repr(u8)]
pub enum Layout {
    /// The seed's: u16 type, u16 flags; 40 bytes, 64 slots.
    Flags16 = 0,
    /// Xen 4.2's: u32 flags; 40 bytes, 64 slots.
    #[default]
    Flags32 = 1,
    /// `vm_event` version 7 (Xen 4.15 to 4.17): 400 bytes, 8 slots.
    VmEvent7 = 2,
}

/// What happens to an event while no consumer holds the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[repr(u8)]
pub enum NoConsumer {
    /// The vCPU waits for one (the seed's behaviour).
    #[default]
    Wait = 0,
    /// The domain is crashed (Xen from 3643a96119 on).
    Crash = 1,
    /// The page is relaxed to `rwx` and the vCPU goes on; for the access ring only.
    Relax = 2,
}

/// A kind of CPU event, on the access ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[repr(u8)]
pub enum CpuEventKind {
    /// CR0 was written.
    Cr0 = 0,
    /// CR3 was written.
    Cr3 = 1,
    /// CR4 was written.
    Cr4 = 2,
    /// A model-specific register was written.
    Msr = 3,
    /// A breakpoint instruction is about to be delivered.
    Int3 = 4,
    /// One instruction was executed.
    SingleStep = 5,
}

impl CpuEventKind {
    /// All six.
    pub const ALL: [CpuEventKind; 6] = [
        CpuEventKind::Cr0,
        CpuEventKind::Cr3,
        CpuEventKind::Cr4,
        CpuEventKind::Msr,
        CpuEventKind::Int3,
        CpuEventKind::SingleStep,
    ];

    /// Whether "on change only" means something: for the control registers (Xen ignores it for MSRs).
    #[must_use]
    pub fn has_old_value(self) -> bool {
        matches!(self, CpuEventKind::Cr0 | CpuEventKind::Cr3 | CpuEventKind::Cr4)
    }
}

/// How CPU events of a kind are reported (`HVMPME_mode_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[repr(u8)]
pub enum MonitorMode {
    /// Not at all.
    #[default]
    Disabled = 0,
    /// The vCPU runs on.
    Async = 1,
    /// The vCPU stops until the answer.
    Sync = 2,
}

/// A control operation. What each needs and in which order it is refused stands in xen-facts of Xen 4.2 (`mem_event_domctl`).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Control {
    /// Create a ring.
    Enable {
        /// Which.
        ring: Ring,
        /// The layout of its slots.
        layout: Layout,
        /// Fewer slots than the page holds: a power of two, or 0 for as many as fit.
        slots: u32,
    },
    /// End a ring. EBUSY while vCPUs wait for a slot, unless it drains.
    Disable {
        /// Which.
        ring: Ring,
        /// Stop new claims, wait for the answers that are due, wake the sleepers, then end.
        drain: bool,
    },
    /// Consume responses now (the seed's RESUME domctl); the same as a kick.
    Resume {
        /// Which ring.
        ring: Ring,
    },
    /// What happens while the ring has no consumer.
    SetNoConsumer {
        /// Which ring.
        ring: Ring,
        /// The setting.
        policy: NoConsumer,
    },
    /// Set the access rights of frames.
    SetAccess {
        /// First frame.
        first: Gfn,
        /// How many.
        count: u64,
        /// The rights.
        access: AccessType,
    },
    /// The access rights of a frame, as `Outcome::Value`.
    GetAccess {
        /// The frame.
        gfn: Gfn,
    },
    /// The rights of frames that come into being from now on.
    SetDefaultAccess {
        /// The rights.
        access: AccessType,
    },
    /// Whether a violation without a listener stops the vCPU (true) or relaxes the page (false).
    SetAccessRequired {
        /// The setting.
        required: bool,
    },
    /// Begin to evict a frame: no vCPU touches it unnoticed from now on.
    Nominate {
        /// The frame.
        gfn: Gfn,
    },
    /// Give a nominated frame's memory back.
    Evict {
        /// The frame.
        gfn: Gfn,
    },
    /// Bring a frame back; the content follows by the effect `Fill`.
    Prep {
        /// The frame.
        gfn: Gfn,
        /// Whether the caller hands a content over.
        buffer: bool,
    },
    /// Balloon a frame out (toolstack context).
    Drop {
        /// The frame.
        gfn: Gfn,
    },
    /// How many frames the domain may hold at a time; `u64::MAX` for no limit.
    SetBudget {
        /// Frames.
        frames: u64,
    },
    /// Which CPU events are reported, and how.
    Monitor {
        /// The kind.
        kind: CpuEventKind,
        /// How.
        mode: MonitorMode,
        /// Only where the new value differs from the old (control registers).
        on_change_only: bool,
    },
    /// Whether a vCPU's single steps are reported, as far as `Monitor` lets them (`DOMCTL_debug_op`).
    SingleStep {
        /// The vCPU.
        vcpu: VcpuId,
        /// On or off.
        on: bool,
    },
    /// A foreign mapping of a frame begins: the frame stays where it is until `Unpin`.
    Pin {
        /// The frame.
        gfn: Gfn,
    },
    /// A foreign mapping of a frame ends.
    Unpin {
        /// The frame.
        gfn: Gfn,
    },
    /// Write-protect a frame so that it can be shared; its handle is the `Outcome::Value`.
    NominateShare {
        /// The frame.
        gfn: Gfn,
    },
    /// Make two nominated frames of equal content (the caller has compared) one.
    Share {
        /// The frame whose memory stays.
        source: Gfn,
        /// Its handle.
        source_handle: u64,
        /// The frame whose memory goes back.
        client: Gfn,
        /// Its handle.
        client_handle: u64,
    },
}
