//! Control operations and their arguments (Xen's domctl 56, `XENMEM_paging_op`, `XENMEM_access_op`, `XENMEM_sharing_op`).
//!
//! Everything here is a table with one row a kind. A new operation is a row of `operations!`; the compiler then names the
//! places that must say what the engine does with it.

use crate::argument::{Argument, next, padded};
use crate::cpu_events::CpuEventKind;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::operation::operations;
use crate::rights::AccessType;
use crate::table::table;
use crate::trap::{Trap, TrapKind};
use bincode::{Decode, Encode};

table! {
    /// The three channels, with Xen's mode numbers.
    pub enum Ring {
        /// The pager's.
        Paging = 1 "paging",
        /// The access listener's (`monitor` from Xen 4.5 on).
        Access = 2 "access",
        /// The out-of-memory helper's.
        Sharing = 3 "sharing",
    }
}

impl Ring {
    /// 0 to 2, for arrays with one entry a ring.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize - 1
    }
}

table! {
    /// How a slot's bytes are laid out.
    #[derive(Default)]
    pub enum Layout {
        /// The seed's: u16 type, u16 flags; 40 bytes, 64 slots.
        Flags16 = 0 "flags16",
        /// Xen 4.2's: u32 flags; 40 bytes, 64 slots.
        #[default]
        Flags32 = 1 "flags32",
        /// `vm_event` version 7 (Xen 4.15 to 4.17): 400 bytes, 8 slots.
        VmEvent7 = 2 "vm_event7",
    }
}

table! {
    /// What happens to an event while no consumer holds the ring.
    #[derive(Default)]
    pub enum NoConsumer {
        /// The vCPU waits for one (the seed's behaviour).
        #[default]
        Wait = 0 "wait",
        /// The domain is crashed (Xen from 3643a96119 on, `access_required = 1`).
        Crash = 1 "crash",
        /// The page's access becomes `rwx` and the vCPU goes on (Xen's `access_required = 0`); for the access ring only.
        Relax = 2 "relax",
    }
}

table! {
    /// How a ring's flow is controlled ([`crate::flow`]).
    #[derive(Default)]
    pub enum FlowKind {
        /// This engine's own.
        #[default]
        Queue = 0 "queue",
        /// Before the patch.
        CheckRing = 1 "check-ring",
        /// The patch as it was sent.
        WaitQueueV5 = 2 "wait-queue-v5",
        /// What Xen took, as it is in 4.17.
        Blocked2012 = 3 "blocked-2012",
    }
}

impl Control {
    /// What is left of a call that sets frames' rights when so many were done at a step, if anything is.
    #[must_use]
    pub fn after(&self, done: u64) -> Option<Control> {
        let mut rest = self.clone();
        match &mut rest {
            Control::SetAccess { first, count, .. } | Control::SetViewAccess { first, count, .. }
                if (1..*count).contains(&done) =>
            {
                first.0 += done;
                *count -= done;
                Some(rest)
            }
            _ => None,
        }
    }
}

impl Trap {
    /// `Control::Inject` of a debug exception as `int1` of so many bytes raises it, or the processor, of 0.
    pub const fn debug(vcpu: VcpuId, length: u8) -> Control {
        let kind = if length == 0 { TrapKind::Exception } else { TrapKind::PrivilegedSoftwareException };
        Control::Inject { vcpu, vector: 1, kind, error: u32::MAX, cr2: 0 }
    }

    /// `Control::Inject` of a breakpoint as `int3` raises it.
    pub const fn breakpoint(vcpu: VcpuId) -> Control {
        Control::Inject { vcpu, vector: 3, kind: TrapKind::SoftwareException, error: u32::MAX, cr2: 0 }
    }
}

table! {
    /// How CPU events of a kind are reported (`HVMPME_mode_*`).
    #[derive(Default)]
    pub enum MonitorMode {
        /// Not at all.
        #[default]
        Disabled = 0 "disabled",
        /// The vCPU runs on.
        Async = 1 "async",
        /// The vCPU stops until the answer.
        Sync = 2 "sync",
    }
}

/// A row of a table goes over the socket as its number.
macro_rules! row_of_a_table {
    ($($type:ident $what:literal),+ $(,)?) => {
        $(impl Argument for $type {
            fn number(self) -> u64 {
                self as u64
            }

            fn from_number(number: u64) -> Result<$type, String> {
                let row = u8::try_from(number).ok().and_then($type::from_number);
                row.ok_or_else(|| format!(concat!("no ", $what, " {}"), number))
            }
        })+
    };
}

row_of_a_table! {
    Ring "ring",
    Layout "slot layout",
    NoConsumer "policy",
    FlowKind "flow control",
    AccessType "access type",
    CpuEventKind "CPU event",
    MonitorMode "monitor mode",
    TrapKind "kind of trap",
}

/// `SetAccess` sets at most so many frames at a step (XSA-89); `Value(n)` then asks to go on after the first n.
pub const SET_ACCESS_SPAN: u64 = 1 << 20;

operations! {
    /// A control operation. What each needs and in which order it is refused stands in Xen 4.2, `mem_event_domctl`.
    // The derives stand here, and not in the macro: bincode's names no field that came through one.
    #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
    pub enum Control {
        /// Create a ring.
        16 "enable" Enable {
            /// Which.
            ring: Ring,
            /// The layout of its slots.
            layout: Layout,
            /// Fewer slots than the page holds: a power of two, or 0 for as many as fit.
            slots: u32,
        }
        /// End a ring. EBUSY while vCPUs wait for a slot, unless it drains.
        17 "disable" Disable {
            /// Which.
            ring: Ring,
            /// Stop new claims, wait for the answers that are due, wake the sleepers, then end.
            drain: bool,
        }
        /// Consume responses now (the seed's RESUME domctl); the same as a kick.
        18 "resume" Resume {
            /// Which ring.
            ring: Ring,
        }
        /// What happens while the ring has no consumer.
        19 "set-no-consumer" SetNoConsumer {
            /// Which ring.
            ring: Ring,
            /// The setting.
            policy: NoConsumer,
        }
        /// Set the access rights of frames.
        20 "set-access" SetAccess {
            /// First frame.
            first: Gfn,
            /// How many.
            count: u64,
            /// The rights.
            access: AccessType,
        }
        /// The access rights of a frame, as `Outcome::Value`.
        21 "get-access" GetAccess {
            /// The frame.
            gfn: Gfn,
        }
        /// The rights of frames that come into being from now on.
        22 "set-default-access" SetDefaultAccess {
            /// The rights.
            access: AccessType,
        }
        /// Whether a violation without a listener stops the vCPU (true) or relaxes the page (false).
        23 "set-access-required" SetAccessRequired {
            /// The setting.
            required: bool,
        }
        /// Begin to evict a frame: no vCPU touches it unnoticed from now on.
        24 "nominate" Nominate {
            /// The frame.
            gfn: Gfn,
        }
        /// Give a nominated frame's memory back.
        25 "evict" Evict {
            /// The frame.
            gfn: Gfn,
        }
        /// Bring a frame back; the content follows by the effect `Fill`.
        26 "prep" Prep {
            /// The frame.
            gfn: Gfn,
            /// Whether the caller hands a content over.
            buffer: bool,
        }
        /// Balloon a frame out (toolstack context).
        27 "drop" Drop {
            /// The frame.
            gfn: Gfn,
        }
        /// How many frames the domain may hold at a time; `u64::MAX` for no limit.
        28 "set-budget" SetBudget {
            /// Frames.
            frames: u64,
        }
        /// Which CPU events are reported, and how.
        29 "monitor" Monitor {
            /// The kind.
            kind: CpuEventKind,
            /// How.
            mode: MonitorMode,
            /// Only where the new value differs from the old (control registers).
            on_change_only: bool,
        }
        /// Whether a vCPU's single steps are reported, as far as `Monitor` lets them (`DOMCTL_debug_op`).
        30 "single-step" SingleStep {
            /// The vCPU.
            vcpu: VcpuId,
            /// On or off.
            on: bool,
        }
        /// A foreign mapping of a frame begins: the frame stays where it is until `Unpin`.
        31 "pin" Pin {
            /// The frame.
            gfn: Gfn,
        }
        /// A foreign mapping of a frame ends.
        32 "unpin" Unpin {
            /// The frame.
            gfn: Gfn,
        }
        /// Write-protect a frame so that it can be shared; its handle is the `Outcome::Value`.
        33 "nominate-share" NominateShare {
            /// The frame.
            gfn: Gfn,
        }
        /// Make two nominated frames of equal content (the caller has compared) one.
        34 "share" Share {
            /// The frame whose memory stays.
            source: Gfn,
            /// Its handle.
            source_handle: u64,
            /// The frame whose memory goes back.
            client: Gfn,
            /// Its handle.
            client_handle: u64,
        }
        /// Deliver an exception or interrupt to a vCPU before its next instruction (`HVMOP_inject_trap`): of one that waits when its event
        /// is answered. Vector 3 at a breakpoint's event lets the guest have that breakpoint.
        35 "inject" Inject {
            /// The vCPU.
            vcpu: VcpuId,
            /// The vector, up to 255.
            vector: u32,
            /// What it is delivered as.
            kind: TrapKind,
            /// The error code, for the vectors that have one; `u32::MAX` for none.
            error: u32,
            /// What CR2 is then, for vector 14.
            cr2: u64,
        }
        /// How the flow of a ring's requests is controlled from its next enable on. EBUSY while it is in use.
        36 "set-flow" SetFlow {
            /// Which ring.
            ring: Ring,
            /// How.
            flow: FlowKind,
        }
        /// Which bits of a control register are of no interest: a write that changes nothing else is no event.
        37 "monitor-mask" MonitorMask {
            /// The register.
            kind: CpuEventKind,
            /// The bits.
            ignored: u64,
        }
        /// How writes of one model-specific register are reported, whether or not all are.
        38 "monitor-msr" MonitorMsr {
            /// Its number.
            msr: u32,
            /// How.
            mode: MonitorMode,
            /// Only where the new value differs from the old.
            on_change_only: bool,
        }
        /// Whether the domain has views: several tables of rights, of which each vCPU goes by one (`HVMOP_altp2m_set_domain_state`). All go by
        /// the host's then, and where there are none any more.
        39 "set-views" SetViews {
            /// The setting.
            on: bool,
        }
        /// Make a view; its number is the `Outcome::Value`.
        40 "create-view" CreateView {
            /// The rights of frames of which nothing else is set there.
            access: AccessType,
        }
        /// End a view. EBUSY while a vCPU goes by it.
        41 "destroy-view" DestroyView {
            /// Which.
            view: ViewId,
        }
        /// Set the access rights of frames in a view.
        42 "set-view-access" SetViewAccess {
            /// Which.
            view: ViewId,
            /// First frame.
            first: Gfn,
            /// How many.
            count: u64,
            /// The rights.
            access: AccessType,
        }
        /// The access rights of a frame in a view, as `Outcome::Value`.
        43 "get-view-access" GetViewAccess {
            /// Which.
            view: ViewId,
            /// The frame.
            gfn: Gfn,
        }
        /// The rights in a view of frames of which nothing else was set there.
        44 "set-view-default" SetViewDefault {
            /// Which.
            view: ViewId,
            /// The rights.
            access: AccessType,
        }
        /// Every vCPU goes by this view from now on.
        45 "switch-view" SwitchView {
            /// Which.
            view: ViewId,
        }
        /// One vCPU goes by this view from now on.
        46 "switch-vcpu-view" SwitchVcpuView {
            /// The vCPU.
            vcpu: VcpuId,
            /// Which.
            view: ViewId,
        }
        /// The view that a vCPU goes by, as `Outcome::Value`.
        47 "get-vcpu-view" GetVcpuView {
            /// The vCPU.
            vcpu: VcpuId,
        }
        /// In a view a frame shows another one's memory from now on, to reads, writes and fetches (`HVMOP_altp2m_change_gfn`). With
        /// [`Gfn::INVALID`] as the other one it is as if nothing had been set of it there.
        48 "change-gfn" ChangeGfn {
            /// Which view.
            view: ViewId,
            /// The frame.
            old: Gfn,
            /// The one whose memory it shows.
            new: Gfn,
        }
        /// Give the domain a frame beyond its RAM, full of zeros, which its guest does not see (`XENMEM_populate_physmap`).
        49 "populate" Populate {
            /// Its number, which must be free.
            gfn: Gfn,
        }
    }
}
