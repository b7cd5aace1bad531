//! What the engine keeps of each vCPU: what it waits for, and what was handed to it while it slept.

use crate::control::Ring;
use crate::emulation::Emulation;
use crate::input::CpuEvent;
use crate::number::{Gfn, ViewId};
use crate::rights::Rights;
use bincode::{Decode, Encode};

/// Why a vCPU does not run. One at a time: a stopped vCPU makes no new event, so a count of event pauses never passes 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub(crate) enum Wait {
    /// It runs.
    #[default]
    Nothing,
    /// Its request is with the consumer of this ring.
    Paused(Ring),
    /// It stands in this ring's queue: for a slot, or for a consumer while there is none.
    Queued(Ring),
    /// It stands in the queue for a frame within the budget.
    Frame,
}

/// What becomes of a breakpoint whose event is out or was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub(crate) enum Breakpoint {
    /// What the layout says.
    #[default]
    AsLaidOut,
    /// The consumer asked for it to be delivered.
    Injected,
    /// The instruction is fetched again.
    FetchedAgain,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub(crate) struct Vcpu {
    pub wait: Wait,
    /// The frame of the request that paused it.
    pub stopped_on: Gfn,
    /// The instruction whose violation paused it, and what that wanted.
    pub stopped_at: u64,
    pub stopped_for: Rights,
    /// A slot that was claimed for it when it was woken.
    pub slot: Option<Ring>,
    /// A frame that was reserved for it when it was woken.
    pub frame: bool,
    /// Its single steps are reported.
    pub single_step: bool,
    /// The next interrupt or exception that it gets is told, and stops it.
    pub next_interrupt: bool,
    /// The CPU event that paused it.
    pub reported: Option<CpuEvent>,
    /// The CPU event that was answered: it is over when the vCPU retries.
    pub answered: Option<CpuEvent>,
    /// What becomes of the breakpoint that it was stopped at.
    pub breakpoint: Breakpoint,
    /// The write that was answered is not to happen.
    pub denied: bool,
    /// The instruction that it may do alone.
    pub emulation: Option<Box<Emulation>>,
    /// The view that it goes by.
    pub view: ViewId,
    /// The view that it goes by when it has done a step, of which nobody is told.
    pub after_step: Option<ViewId>,
}

impl Vcpu {
    pub fn is_paused_by(&self, ring: Ring) -> bool {
        self.wait == Wait::Paused(ring)
    }
}
