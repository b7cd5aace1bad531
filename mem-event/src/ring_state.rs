//! What the engine keeps of a ring besides its page: its phase, its claims, the requests that are out and the vCPUs that wait.

use crate::control::{Layout, NoConsumer};
use crate::flow::Queue;
use crate::packed::Packed;
use bincode::{Decode, Encode};
use std::collections::VecDeque;

/// Where a ring stands in its life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub enum RingPhase {
    /// Never enabled, or ended.
    #[default]
    Absent,
    /// A consumer holds it.
    Live,
    /// It takes no more claims and ends when the last answer is in.
    Draining,
    /// Its consumer went away; what was not answered is kept for the successor.
    Lost,
    /// Its consumer wrote nonsense.
    Broken(String),
}

/// A slot that is reserved for a caller. Only `Channel::put` and `Channel::cancel` take it.
#[derive(Debug)]
#[must_use = "a claim that is neither put nor cancelled holds its slot for ever"]
pub(crate) struct Claim {
    pub foreign: bool,
    /// Which generation of the ring it belongs to: a claim that outlives its ring is void.
    pub generation: u64,
}

impl Claim {
    /// A claim that only a flow control of Xen's history can judge. No ring has this generation, so `Channel::put` finds it void.
    pub const fn historic(foreign: bool) -> Claim {
        Claim { foreign, generation: u64::MAX }
    }

    /// Whether it is one of those.
    pub const fn is_historic(&self) -> bool {
        self.generation == u64::MAX
    }
}

/// What a claim comes to.
#[derive(Debug)]
pub(crate) enum Claimed {
    Slot(Claim),
    Full,
    NoConsumer,
}

/// Everything about a channel but the page.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct RingState {
    pub phase: RingPhase,
    pub policy: NoConsumer,
    pub layout: Layout,
    pub slots: u32,
    /// Put and not answered, oldest first.
    pub outstanding: VecDeque<Packed>,
    /// Claims that are not put yet, and who waits for one.
    pub flow: Queue,
    /// Counts up whenever claims become void.
    pub generation: u64,
}
