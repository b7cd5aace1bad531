//! What a claim and a put come to.

use bincode::{Decode, Encode};

/// Where a vCPU sleeps that got no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Place {
    /// In line; when it is woken, a slot is reserved for it.
    Line,
    /// Inside its claim: it holds its event, and must claim again.
    Claim,
    /// Marked, without its event: where an instruction faults, it makes the event anew. Else the event is lost.
    Flag,
}

/// What a claim comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Try {
    /// A slot is counted for the caller.
    Slot,
    /// The vCPU sleeps.
    Asleep(Place),
    /// There is no room, and the caller cannot sleep.
    Refused,
    /// There is no ring.
    NoRing,
}

/// What a put comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Put {
    /// The request is on the ring. `blocked`: its poster is stopped, to throttle it.
    Done {
        /// Until it is woken.
        blocked: bool,
    },
    /// The poster sleeps inside the put, with its request.
    Asleep,
    /// The request is gone; a line is printed.
    Lost,
    /// The request is written through a pointer to a ring that is no more.
    Fault,
}

/// The vCPUs that wait on a ring keep it from being disabled (EBUSY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;
