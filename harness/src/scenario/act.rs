//! What a scenario can do. A new act is a variant of one of two types; the compiler then asks here what it names and needs, and what it
//! does: of [`MemoryAct`]s in `toolstack`, of [`ConsumerAct`]s in `consumers`.

use super::name::Name;
use super::role::Role;
use super::text::{Number, Place, Size, Stop};
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use mem_event::message::VcpuState;
use mem_event::{AccessType, CpuEventKind, Errno, MonitorMode, NoConsumer, Ring, TrapKind};
use schemars::JsonSchema;
use serde::Deserialize;

/// Something that a scenario does at its start and in its steps.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Act {
    /// To the guest's memory, its vCPUs or the domain.
    Memory(MemoryAct),
    /// To consumers and rings, or by a consumer.
    Consumer(ConsumerAct),
}

/// What is done to the guest's memory, its vCPUs or the domain by control operations over one connection; a listener's rule can do
/// it too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum MemoryAct {
    /// Stop some accesses to frames from now on; the rights to others stay.
    Watch {
        /// Which frames.
        frames: Place,
        /// The accesses that stop.
        stop: Stop,
        /// Only of vCPUs that go by this view.
        view: Option<u16>,
    },
    /// Set the access rights of frames.
    SetAccess {
        /// Which frames.
        frames: Place,
        /// The rights that are left.
        access: Name<AccessType>,
        /// To vCPUs that go by this view.
        view: Option<u16>,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// End foreign mappings.
    Unmap {
        /// Which frames.
        frames: Place,
    },
    /// Begin to evict frames: a touch of one from now on makes its eviction fail. Their content is not kept.
    Nominate {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Give nominated frames' memory back.
    Evict {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Bring frames back without a content, as a pager does that has lost it.
    Prep {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Balloon frames out; a pager that holds their content is told to drop it.
    Balloon {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Let frames show one and the same memory, write-protected, until one is written to. They must be equal.
    Share {
        /// Whose memory stays: one frame for all, or as many as the others.
        frames: Place,
        /// The frame that shows it too, and gives its own page back.
        with: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// How much memory the guest may hold from now on, without anybody evicting any; without either there is no limit.
    Budget {
        /// As much.
        size: Option<Size>,
        /// How many frames more than the domain holds now.
        spare: Option<u64>,
    },
    /// The rights of frames that come into being from now on.
    DefaultAccess {
        /// The rights.
        access: Name<AccessType>,
        /// In this view the rights of all frames of which nothing else was set there.
        view: Option<u16>,
    },
    /// Whether a violation without a listener stops the vCPU, or relaxes the page.
    AccessRequired {
        /// Whether it stops.
        required: bool,
    },
    /// What happens from now on to an event while the ring has no consumer.
    NoConsumer {
        /// The ring.
        ring: Name<Ring>,
        /// What happens.
        policy: Name<NoConsumer>,
    },
    /// Overwrite eight bytes.
    Write {
        /// The address.
        at: Place,
        /// What.
        value: Number,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Eight bytes must hold this value, or the scenario fails.
    Expect {
        /// The address.
        at: Place,
        /// What must be there.
        value: Number,
    },
    /// Which CPU events are reported from now on, and how.
    Monitor {
        /// The kind.
        event: Name<CpuEventKind>,
        /// How.
        mode: Name<MonitorMode>,
        /// Only where the new value differs from the old.
        #[serde(default)]
        on_change_only: bool,
        /// Of a control register the bits whose change alone is no event.
        ignore: Option<Number>,
        /// Of model-specific registers this one alone.
        register: Option<u32>,
    },
    /// Whether a vCPU's single steps are reported, as far as they are monitored.
    SingleStep {
        /// The vCPU.
        #[serde(default)]
        vcpu: u32,
        /// On or off.
        on: bool,
    },
    /// Whether the domain has views: several tables of rights, of which each vCPU goes by one. 0 is the one that there is without any.
    Views {
        /// Whether it has.
        on: bool,
    },
    /// Make a view.
    CreateView {
        /// The number that it must get: the lowest that is free.
        view: Option<u16>,
        /// The rights of frames of which nothing else is set there.
        #[serde(default)]
        access: Option<Name<AccessType>>,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// End a view.
    DestroyView {
        /// Which.
        view: u16,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Have vCPUs go by a view.
    SwitchView {
        /// Which.
        view: u16,
        /// This vCPU alone; all without it.
        vcpu: Option<u32>,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Give the domain frames beyond its RAM, which the guest does not see, or frames of its RAM that were taken out.
    Populate {
        /// Their numbers.
        frames: Place,
        /// They hold what these hold, as many; zeros without.
        copy: Option<Place>,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// In a view frames show the memory of others, to reads, writes and fetches.
    Show {
        /// Which frames.
        frames: Place,
        /// Whose memory: as many. Without it nothing is set of the frames in the view any more.
        of: Option<Place>,
        /// Which view.
        view: u16,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Have an exception or interrupt delivered to a vCPU before its next instruction, as HVMOP_inject_trap does: when its event is answered, or
    /// it goes on from its checkpoint.
    Inject {
        /// The vCPU.
        #[serde(default)]
        vcpu: u32,
        /// The vector.
        vector: u8,
        /// What it is delivered as: of vector 2 an NMI, of 3 and 4 a software exception, up to 31 an exception, above an interrupt.
        r#as: Option<Name<TrapKind>>,
        /// The error code, for the vectors that have one.
        error: Option<u32>,
        /// What CR2 is then, for vector 14.
        cr2: Option<Number>,
    },
}

/// What is done to consumers and rings, or by a consumer. A listener's rule cannot: it is served by the thread that would have to do
/// it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ConsumerAct {
    /// Page frames out. Those that cannot be (never touched, no RAM) are left.
    PageOut {
        /// Which frames.
        frames: Place,
    },
    /// Hold the guest to so much memory from now on.
    Target {
        /// RAM.
        memory: Size,
    },
    /// Begin foreign mappings: frames that are paged out come back first, and none leaves before `unmap`.
    Map {
        /// Which frames.
        frames: Place,
    },
    /// Enable a ring, as the toolstack does: it has no consumer until it is disabled and a consumer joins.
    Enable {
        /// The ring.
        ring: Name<Ring>,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// End a ring, as the toolstack does. Its consumer here is gone with it, but for one that drains.
    Disable {
        /// The ring.
        ring: Name<Ring>,
        /// Take no new events, let the consumer answer what is due, wake who waits, then end.
        #[serde(default)]
        drain: bool,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// A consumer is gone without a word: killed, where it is a process of its own.
    Kill {
        /// Which.
        consumer: Role,
    },
    /// A consumer comes, or comes back, and enables its ring; it finds the unanswered events.
    Join {
        /// Which.
        consumer: Role,
    },
    /// A consumer takes no request until `resume`: one that is slow. A process of its own is stopped.
    Hold {
        /// Which.
        consumer: Role,
    },
    /// A consumer that was held goes on, with all that waits.
    Resume {
        /// Which.
        consumer: Role,
    },
    /// How many events must have been on a ring up to here; otherwise the scenario fails.
    ExpectEvents {
        /// The ring.
        ring: Name<Ring>,
        /// How many.
        count: u64,
    },
    /// Wait, without serving any ring, until a number of vCPUs wait for something.
    WaitUntil {
        /// The least number of them.
        vcpus: usize,
        /// For what.
        wait_for: Name<VcpuState>,
    },
}

impl From<MemoryAct> for Act {
    fn from(act: MemoryAct) -> Act {
        Act::Memory(act)
    }
}

impl From<ConsumerAct> for Act {
    fn from(act: ConsumerAct) -> Act {
        Act::Consumer(act)
    }
}

pub(super) type Wrong<'a> = (Refusal, &'a Place);

pub(super) fn are_frames<'a>(place: &'a Place, symbols: &Symbols) -> Result<(), Wrong<'a>> {
    place.check(symbols).map_err(|refusal| (refusal, place))
}

impl Act {
    /// The act, if it is one to memory.
    #[must_use]
    pub fn memory(&self) -> Option<&MemoryAct> {
        if let Act::Memory(act) = self { Some(act) } else { None }
    }

    /// The consumer that it kills, brings back, holds or lets go on.
    #[must_use]
    pub fn consumer(&self) -> Option<Role> {
        if let Act::Consumer(act) = self { act.consumer() } else { None }
    }

    /// Checks that what it names is in the guest.
    ///
    /// # Errors
    /// What is not, and where that is written.
    pub fn check(&self, symbols: &Symbols) -> Result<(), (Refusal, &Place)> {
        match self {
            Act::Memory(act) => act.check(symbols),
            Act::Consumer(act) => act.check(symbols),
        }
    }
}

impl ConsumerAct {
    fn check(&self, symbols: &Symbols) -> Result<(), Wrong<'_>> {
        match self {
            ConsumerAct::PageOut { frames } | ConsumerAct::Map { frames } => are_frames(frames, symbols),
            ConsumerAct::Target { .. }
            | ConsumerAct::Enable { .. }
            | ConsumerAct::Disable { .. }
            | ConsumerAct::Kill { .. }
            | ConsumerAct::Join { .. }
            | ConsumerAct::Hold { .. }
            | ConsumerAct::Resume { .. }
            | ConsumerAct::ExpectEvents { .. }
            | ConsumerAct::WaitUntil { .. } => Ok(()),
        }
    }

    fn consumer(&self) -> Option<Role> {
        match self {
            ConsumerAct::Kill { consumer }
            | ConsumerAct::Join { consumer }
            | ConsumerAct::Hold { consumer }
            | ConsumerAct::Resume { consumer } => Some(*consumer),
            ConsumerAct::PageOut { .. }
            | ConsumerAct::Target { .. }
            | ConsumerAct::Map { .. }
            | ConsumerAct::Enable { .. }
            | ConsumerAct::Disable { .. }
            | ConsumerAct::ExpectEvents { .. }
            | ConsumerAct::WaitUntil { .. } => None,
        }
    }
}
