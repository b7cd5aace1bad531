//! Faults into a consumer's world: what a real Xen or a loaded machine may do to a consumer, and which a right consumer survives.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | faults counted and told, at the moments to which they belong |
//! | [`fault`] | the kinds of faults, and which error Xen gives for which call |
//! | [`plan`] | which fault comes at which moment: a pure function of a seed and of faults that are named |
//! | [`draw`] | numbers from a seed |
//! | [`later`] | what is done after a while, in a thread of its own |
//!
//! No fault loses a notification, a request or a response, and none lets a consumer's call overtake its responses.

pub mod draw;
pub mod fault;
pub mod later;
pub mod plan;

pub use self::fault::{Fault, Kind, Refusable};
pub use self::plan::Plan;

use self::later::Later;
use mem_event::{Errno, Ring};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What a call is told that a fault refused.
pub const SENTENCE: &str = "a fault that was asked for; nothing was done";

/// How many calls, requests and responses there were.
#[derive(Debug, Default)]
struct Counts {
    calls: [u64; Refusable::ALL.len()],
    requests: [u64; 3],
    responses: [u64; 3],
}

/// Hears of each fault that was made.
type Tell = Box<dyn Fn(&Fault) + Send + Sync>;

/// The faults of one domain.
pub struct Chaos {
    plan: Plan,
    tell: Tell,
    counts: Mutex<Counts>,
    later: Later,
}

impl std::fmt::Debug for Chaos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chaos").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Chaos {
    /// Faults by this plan; `tell` hears of each that was made.
    #[must_use]
    pub fn new(plan: Plan, tell: impl Fn(&Fault) + Send + Sync + 'static) -> Chaos {
        Chaos { plan, tell: Box::new(tell), counts: Mutex::default(), later: Later::new() }
    }

    /// Whether no fault can come.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.plan.is_none()
    }

    /// A consumer makes such a call: the error with which it is refused, if it is.
    pub fn call(&self, call: Refusable) -> Option<Errno> {
        let nth = self.next(|counts| &mut counts.calls[call as usize])?;
        let errno = self.plan.refusal(call, nth)?;
        (self.tell)(&Fault::Refuse { call, nth, times: 1, errno });
        Some(errno)
    }

    /// A request was put on a ring: the fault that comes with it, if one does.
    pub fn request(&self, ring: Ring) -> Option<Fault> {
        let nth = self.next(|counts| &mut counts.requests[ring.index()])?;
        let fault = self.plan.at_request(ring, nth)?;
        (self.tell)(&fault);
        Some(fault)
    }

    /// Responses of a ring are about to be taken: how much later they are, if they are.
    pub fn response(&self, ring: Ring) -> Option<Duration> {
        let nth = self.next(|counts| &mut counts.responses[ring.index()])?;
        let by = self.plan.at_response(ring, nth)?;
        (self.tell)(&Fault::LateResponse { ring, nth, by });
        Some(by)
    }

    /// Does something after so long, in a thread of its own.
    pub fn later(&self, by: Duration, act: impl FnOnce() + Send + 'static) {
        self.later.after(by, act);
    }

    /// The number of what comes now, the first being 1; nothing where no fault can come.
    fn next(&self, place: impl FnOnce(&mut Counts) -> &mut u64) -> Option<u64> {
        if self.plan.is_none() {
            return None;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = place(&mut counts);
        *count += 1;
        Some(*count)
    }
}
