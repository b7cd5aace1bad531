//! Flow control: who may put a request on a ring, who sleeps where when it is full, and who is woken. Four policies behind one interface:
//! this engine's, and three that Xen had or was offered. None of the three is mended.
//!
//! They are pure: no ring page, no events, no time. Whoever drives one keeps the ring's free slots (`RING_FREE_REQUESTS`: slots without
//! the requests that are not answered yet) and hands them in, and remembers where each sleeper sleeps:
//!
//! 1. [`Flow::claim`]. `Slot`: go on. `Asleep(place)`: the vCPU sleeps; when [`Stops::woken`] names it, [`Flow::claim_again`] with that place.
//! 2. A synchronous event pauses its vCPU: [`Stops::pause`]. (The sources of 2011 pause before the claim in sharing, v5 after the put.)
//! 3. [`Flow::put`]. `Done`: the request is on the ring, so there is one free slot less; `blocked` says that the poster is stopped until it
//!    is woken, and then goes on. `Asleep`: it sleeps with its request in its hands; when it is woken, `put` again. `Lost`, `Fault`: as named.
//! 4. A response: one free slot more, [`Flow::taken`], the answered vCPU's [`Stops::answer`], [`Flow::answered`].
//!
//! Of those that are woken by one step the order in which they run is the driver's choice: the sources leave it to the scheduler.
//!
//! | file | what lives there |
//! |---|---|
//! | `queue` | this engine's: a freed slot is granted to the oldest waiter |
//! | `check_ring` | before the patch: a full ring's vCPU sleeps without its event |
//! | `wait_queue_v5` | the patch as sent: a vCPU sleeps in its put |
//! | `blocked_2012` | what Xen took: a vCPU sleeps in its claim, and posters are throttled |
//! | `outcome` | what a claim and a put come to |
//! | `stops` | counts of pauses and pause flags |
//! | `waiters` | Xen's wait queue |

pub mod blocked_2012;
pub mod check_ring;
pub mod outcome;
pub mod queue;
pub mod stops;
pub mod wait_queue_v5;
mod waiters;

pub use blocked_2012::{Blocked2012, Form};
pub use check_ring::CheckRing;
pub use outcome::{Busy, Place, Put, Try};
pub use queue::Queue;
pub use stops::{Stop, Stops};
pub use wait_queue_v5::WaitQueueV5;

pub use crate::control::FlowKind;
use crate::control::Ring;
use crate::number::VcpuId;
use bincode::{Decode, Encode};
use std::collections::VecDeque;

/// One ring's flow control.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Flow {
    /// This engine's own, and how many slots its ring has (0: there is none).
    Queue(Queue, u32),
    /// Before the patch.
    CheckRing(CheckRing),
    /// The patch as sent.
    WaitQueueV5(WaitQueueV5),
    /// What Xen took.
    Blocked2012(Blocked2012),
}

impl Default for Flow {
    fn default() -> Flow {
        Flow::Queue(Queue::default(), 0)
    }
}

impl Flow {
    /// A policy for a ring that is not enabled yet.
    #[must_use]
    pub fn new(kind: FlowKind, ring: Ring) -> Flow {
        match kind {
            FlowKind::Queue => Flow::default(),
            FlowKind::CheckRing => Flow::CheckRing(CheckRing::default()),
            FlowKind::WaitQueueV5 => Flow::WaitQueueV5(WaitQueueV5::new(ring)),
            FlowKind::Blocked2012 => Flow::Blocked2012(Blocked2012::new(Form::Xen417, stops::flag_of(ring))),
        }
    }

    /// What Xen took, as it was merged in 2012.
    #[must_use]
    pub fn as_merged(ring: Ring) -> Flow {
        Flow::Blocked2012(Blocked2012::new(Form::Merged, stops::flag_of(ring)))
    }

    /// Which it is.
    #[must_use]
    pub const fn kind(&self) -> FlowKind {
        match self {
            Flow::Queue(..) => FlowKind::Queue,
            Flow::CheckRing(_) => FlowKind::CheckRing,
            Flow::WaitQueueV5(_) => FlowKind::WaitQueueV5,
            Flow::Blocked2012(_) => FlowKind::Blocked2012,
        }
    }

    /// The ring begins.
    pub fn enable(&mut self, slots: u32, stops: &mut Stops) {
        match self {
            Flow::Queue(it, ring) => {
                *ring = slots;
                grant(it, slots, stops);
            }
            Flow::CheckRing(it) => it.enable(stops),
            Flow::WaitQueueV5(it) => it.enable(stops),
            Flow::Blocked2012(it) => it.enable(),
        }
    }

    /// The ring ends.
    ///
    /// # Errors
    /// Where the policy refuses it because vCPUs wait.
    pub fn disable(&mut self, stops: &mut Stops) -> Result<(), Busy> {
        let idle = match self {
            Flow::Queue(it, slots) => {
                let idle = it.waiters.is_empty();
                *slots *= u32::from(!idle);
                idle
            }
            Flow::CheckRing(it) => {
                it.disable();
                true
            }
            Flow::WaitQueueV5(it) => it.disable(),
            Flow::Blocked2012(it) => it.disable(stops),
        };
        idle.then_some(()).ok_or(Busy)
    }

    /// A claim of one of the domain's vCPUs.
    #[inline]
    pub fn claim(&mut self, vcpu: VcpuId, free: u32, stops: &mut Stops) -> Try {
        match self {
            Flow::Queue(_, 0) => Try::NoRing,
            Flow::Queue(it, _) => {
                if it.claim(free) {
                    return Try::Slot;
                }
                stops.pause(vcpu);
                it.wait(vcpu)
            }
            Flow::CheckRing(it) => it.claim(vcpu, free, stops),
            Flow::WaitQueueV5(it) => it.claim(),
            Flow::Blocked2012(it) => it.claim(vcpu, free, stops),
        }
    }

    /// The claim of a vCPU that slept and runs again.
    #[inline]
    pub fn claim_again(&mut self, vcpu: VcpuId, place: Place, free: u32, stops: &mut Stops) -> Try {
        match place {
            // The slot was claimed when it was woken.
            Place::Line => Try::Slot,
            Place::Claim | Place::Flag => self.claim(vcpu, free, stops),
        }
    }

    /// A claim of somebody that is none of the domain's vCPUs, and cannot sleep.
    #[inline]
    pub fn claim_foreign(&mut self, free: u32) -> Try {
        match self {
            Flow::Queue(_, 0) => Try::NoRing,
            Flow::Queue(it, slots) => {
                let room = it.claim_foreign(free, *slots);
                if room { Try::Slot } else { Try::Refused }
            }
            Flow::CheckRing(it) => it.claim_foreign(free),
            Flow::WaitQueueV5(it) => it.claim_foreign(free),
            Flow::Blocked2012(it) => it.claim_foreign(free),
        }
    }

    /// The claim before an event that tells the pager of a dropped frame; `None` is a foreign caller. v5 makes none, nor looks for a ring.
    pub fn claim_drop(&mut self, vcpu: Option<VcpuId>, free: u32, stops: &mut Stops) -> Try {
        match (self, vcpu) {
            (Flow::WaitQueueV5(_), _) => Try::Slot,
            (it, Some(vcpu)) => it.claim(vcpu, free, stops),
            (it, None) => it.claim_foreign(free),
        }
    }

    /// A vCPU puts its request, or tries again; `paused` where its event has paused it. `free` is from before it.
    #[inline]
    pub fn put(&mut self, vcpu: VcpuId, paused: bool, free: u32, stops: &mut Stops) -> Put {
        match self {
            Flow::Queue(it, _) => {
                it.discharge(false);
                Put::Done { blocked: false }
            }
            Flow::CheckRing(it) => it.put(),
            Flow::WaitQueueV5(it) => it.put(vcpu, free, stops),
            Flow::Blocked2012(it) => it.put(Some(vcpu), paused, free, stops),
        }
    }

    /// Somebody else puts its request.
    #[inline]
    pub fn put_foreign(&mut self, free: u32, stops: &mut Stops) -> Put {
        match self {
            Flow::Queue(it, _) => {
                it.discharge(true);
                Put::Done { blocked: false }
            }
            Flow::CheckRing(it) => it.put(),
            Flow::WaitQueueV5(it) => it.put_foreign(free),
            Flow::Blocked2012(it) => it.put(None, false, free, stops),
        }
    }

    /// A claim is given back.
    pub fn cancel(&mut self, foreign: bool, free: u32, stops: &mut Stops) {
        match self {
            Flow::Queue(it, _) => {
                it.discharge(foreign);
                grant(it, free, stops);
            }
            Flow::CheckRing(it) => it.release(),
            Flow::WaitQueueV5(it) => it.release(foreign),
            Flow::Blocked2012(it) => it.release(foreign, free, stops),
        }
    }

    /// A response was taken, and has had no effects yet. `free` is from after it.
    #[inline]
    pub fn taken(&mut self, free: u32, stops: &mut Stops) {
        match self {
            Flow::Queue(it, _) => grant(it, free, stops),
            Flow::CheckRing(_) | Flow::WaitQueueV5(_) => {}
            Flow::Blocked2012(it) => it.wake(free, stops),
        }
    }

    /// A response has had its effects: the answered vCPU is unpaused.
    #[inline]
    pub fn answered(&mut self, free: u32, stops: &mut Stops) {
        match self {
            Flow::Queue(..) | Flow::Blocked2012(_) => {}
            Flow::CheckRing(_) => CheckRing::answered(stops),
            Flow::WaitQueueV5(it) => it.answered(free, stops),
        }
    }

    /// A vCPU needs a ring that is not there, and its event may not be passed over. `NoRing`: the policy has no answer (the domain crashes).
    pub fn without_listener(&mut self, vcpu: VcpuId, stops: &mut Stops) -> Try {
        match self {
            Flow::Queue(it, _) => {
                stops.pause(vcpu);
                it.wait(vcpu)
            }
            Flow::CheckRing(_) => {
                stops.mark(vcpu, check_ring::FLAG);
                Try::Asleep(Place::Flag)
            }
            Flow::WaitQueueV5(it) => it.without_listener(vcpu, stops),
            Flow::Blocked2012(_) => Try::NoRing,
        }
    }

    /// Claims that are neither put nor given back. Some of the accounts of 2011 run over or below 0.
    #[must_use]
    pub fn claims(&self) -> u32 {
        match self {
            Flow::Queue(it, _) => it.targets + it.foreigners,
            Flow::CheckRing(it) => it.producers,
            Flow::WaitQueueV5(it) => u32::from(it.targets) + u32::from(it.foreigners),
            Flow::Blocked2012(it) => it.targets + it.foreigners,
        }
    }

    /// vCPUs that stand in a queue, oldest first; `None` where there is no queue.
    #[must_use]
    pub fn waiters(&self) -> Option<&VecDeque<VcpuId>> {
        match self {
            Flow::Queue(it, _) => Some(&it.waiters),
            Flow::CheckRing(_) => None,
            Flow::WaitQueueV5(it) => Some(&it.waiters.list),
            Flow::Blocked2012(it) => Some(&it.waiters.list),
        }
    }

    /// A vCPU that sleeps here does something else: it was reset. Its claim, if it sleeps in its put, is given back.
    pub(crate) fn leave(&mut self, vcpu: VcpuId, in_put: bool, stops: &mut Stops) {
        let stays = |other: &VcpuId| *other != vcpu;
        match self {
            Flow::Queue(it, _) => it.waiters.retain(stays),
            Flow::CheckRing(_) => drop(stops.unmark(vcpu, check_ring::FLAG)),
            Flow::WaitQueueV5(it) => {
                it.waiters.list.retain(stays);
                if in_put {
                    it.release(false);
                }
            }
            Flow::Blocked2012(it) => {
                it.waiters.list.retain(stays);
                it.unblock(vcpu, stops);
            }
        }
    }

    /// Whether it can be the flow control of a ring with so many slots (0: there is none), as far as can be told.
    pub(crate) fn fits(&self, slots: u32) -> bool {
        match self {
            Flow::Queue(_, own) => *own == slots,
            Flow::CheckRing(it) => it.ring == (slots > 0),
            Flow::WaitQueueV5(it) => it.ring == (slots > 0) && it.is_sound(),
            Flow::Blocked2012(it) => it.ring == (slots > 0) && it.is_sound(),
        }
    }

    /// Whether it counts as many throttled vCPUs as have its flag.
    pub(crate) fn agrees(&self, stops: &Stops) -> bool {
        match self {
            Flow::Queue(..) | Flow::CheckRing(_) | Flow::WaitQueueV5(_) => true,
            Flow::Blocked2012(it) => it.agrees(stops),
        }
    }

    /// vCPUs that sleep for want of room, in a queue or marked, and those that are throttled.
    #[must_use]
    pub fn sleepers(&self, stops: &Stops) -> (u32, u32) {
        let length = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        match self {
            Flow::Queue(it, _) => (length(it.waiters.len()), 0),
            Flow::CheckRing(_) => (stops.count(check_ring::FLAG), 0),
            Flow::WaitQueueV5(it) => (length(it.waiters.list.len()), 0),
            Flow::Blocked2012(it) => (length(it.waiters.list.len()), it.blocked),
        }
    }
}

/// Every slot that is free goes to the oldest waiter, which wakes.
#[inline]
fn grant(queue: &mut Queue, free: u32, stops: &mut Stops) {
    while let Some(vcpu) = queue.grant(free) {
        stops.unpause(vcpu);
    }
}
