//! What a vCPU is at.

use mem_event::flow::Place;

/// What kind of event a vCPU makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// An access that faults: the vCPU stops until it is answered, and the instruction can be tried again.
    #[default]
    Fault,
    /// Told of, without a stop. What is told has happened, so it cannot be made anew.
    Notice,
    /// A frame that the guest has given back; else as a notice.
    Drop,
}

/// What a vCPU is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// It runs.
    #[default]
    Work,
    /// It has no slot, and sleeps.
    Asleep(Place),
    /// It has a slot, and is about to put its request.
    Claimed,
    /// It sleeps inside its put.
    InPut,
    /// It was woken, and will try again: the claim, or the put.
    Woken(Option<Place>),
    /// Its request is on the ring, and it stops for the answer.
    Stopped,
    /// Nothing of its event is left to wait for, and it runs when it is woken: it was answered, is throttled, or its event is lost.
    Done,
}

/// A vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vcpu {
    /// What it is at.
    pub at: At,
    /// What it makes.
    pub kind: Kind,
    /// On which ring.
    pub ring: u32,
    /// Its event has paused it already.
    pub paused: bool,
    /// When its event began.
    pub begun: u64,
    /// When its request was put.
    pub put: Option<u64>,
    /// Events that were answered, in the time that is measured.
    pub answered: u64,
}
