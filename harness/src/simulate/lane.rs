//! One ring: its flow control, its slots, the requests on it, its consumers.

use super::settings::{Dispatch, Settings};
use mem_event::Ring;
use mem_event::flow::{Flow, FlowKind, Stops};
use std::collections::VecDeque;

/// Whose request it is, and whether it stops its vCPU: a number and a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose(u32);

impl Whose {
    const STOPS: u32 = 1 << 31;
    const FOREIGN: u32 = Whose::STOPS - 1;

    /// A vCPU's.
    #[must_use]
    pub fn vcpu(vcpu: u32, stops: bool) -> Whose {
        Whose(vcpu | if stops { Whose::STOPS } else { 0 })
    }

    /// Nobody's whom the domain knows.
    #[must_use]
    pub fn foreign() -> Whose {
        Whose(Whose::FOREIGN)
    }

    /// The vCPU; none where it is foreign.
    #[must_use]
    pub fn who(self) -> Option<u32> {
        let vcpu = self.0 & !Whose::STOPS;
        (vcpu != Whose::FOREIGN).then_some(vcpu)
    }

    /// Whether it stops its vCPU.
    #[must_use]
    pub fn stops(self) -> bool {
        self.0 & Whose::STOPS != 0
    }
}

/// A consumer.
#[derive(Debug, Default)]
struct Consumer {
    /// It sleeps until it is signalled.
    asleep: bool,
    /// What it has taken and will answer.
    taken: Vec<Whose>,
}

/// A ring.
#[derive(Debug)]
pub struct Lane {
    /// Which one.
    pub ring: Ring,
    /// Its flow control.
    pub flow: Flow,
    slots: u32,
    /// Requests that are not answered.
    out: u32,
    /// Requests that no consumer has taken; one queue, or with a dispatcher one a consumer.
    pending: Vec<VecDeque<Whose>>,
    consumers: Vec<Consumer>,
    /// Consumers that sleep.
    sleeping: u32,
    /// Slots times nanoseconds in use, and nanoseconds with none free, since `since`.
    used: u128,
    full: u64,
    changed: u64,
    since: u64,
}

/// How much of a ring was in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// Of its slots, on the average over time.
    pub used: f64,
    /// The part of the time in which none was free.
    pub full: f64,
}

impl Lane {
    /// A ring that is enabled, with consumers that sleep.
    #[must_use]
    pub fn new(kind: FlowKind, ring: Ring, settings: &Settings, stops: &mut Stops) -> Lane {
        let mut flow = Flow::new(kind, ring);
        flow.enable(settings.slots, stops);
        let queues = match settings.dispatch {
            Dispatch::Any => 1,
            Dispatch::Vcpu => settings.consumers,
        };
        let consumers = (0..settings.consumers).map(|_| Consumer { asleep: true, taken: Vec::new() }).collect();
        Lane {
            ring,
            flow,
            slots: settings.slots,
            out: 0,
            pending: (0..queues).map(|_| VecDeque::new()).collect(),
            consumers,
            sleeping: settings.consumers,
            used: 0,
            full: 0,
            changed: 0,
            since: 0,
        }
    }

    /// Slots without a request: `RING_FREE_REQUESTS`.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.slots - self.out
    }

    /// Requests that are not answered.
    #[must_use]
    pub fn out(&self) -> u32 {
        self.out
    }

    /// The flow control's put has put a request: the consumer that has to be signalled for it, if one sleeps.
    #[inline]
    pub fn put(&mut self, whose: Whose, now: u64) -> Option<u32> {
        self.count(now);
        self.out += 1;
        assert!(self.out <= self.slots, "a request was put where no slot was free");
        let queue = match self.pending.len() {
            1 => 0,
            count => whose.who().unwrap_or(0) as usize % count,
        };
        self.pending[queue].push_back(whose);
        self.sleeper(queue)
    }

    fn sleeper(&mut self, queue: usize) -> Option<u32> {
        if self.sleeping == 0 {
            return None;
        }
        let at = if self.pending.len() == 1 { self.consumers.iter().position(|it| it.asleep)? } else { queue };
        let consumer = &mut self.consumers[at];
        if !std::mem::take(&mut consumer.asleep) {
            return None;
        }
        self.sleeping -= 1;
        u32::try_from(at).ok()
    }

    /// A consumer takes what is there, up to so many; how many it has. With none it sleeps.
    #[inline]
    pub fn take(&mut self, consumer: u32, most: u32) -> usize {
        let at = consumer as usize;
        let queue = if self.pending.len() == 1 { 0 } else { at };
        let (queue, consumer) = (&mut self.pending[queue], &mut self.consumers[at]);
        let count = queue.len().min(most as usize);
        for _ in 0..count {
            consumer.taken.extend(queue.pop_front());
        }
        if count == 0 {
            consumer.asleep = true;
            self.sleeping += 1;
        }
        count
    }

    /// The oldest request that a consumer has taken, to be answered.
    #[inline]
    pub fn taken(&mut self, consumer: u32, number: usize) -> Option<Whose> {
        let taken = &mut self.consumers[consumer as usize].taken;
        let whose = taken.get(number).copied();
        if whose.is_none() {
            taken.clear();
        }
        whose
    }

    /// An answer gives a slot back; how many are free then.
    #[inline]
    pub fn answered(&mut self, now: u64) -> u32 {
        self.count(now);
        self.out -= 1;
        self.free()
    }

    fn count(&mut self, now: u64) {
        let time = now - self.changed;
        self.changed = now;
        self.used += u128::from(self.out) * u128::from(time);
        if self.out == self.slots {
            self.full += time;
        }
    }

    /// Counting of use begins.
    pub fn measure(&mut self, now: u64) {
        (self.used, self.full, self.changed, self.since) = (0, 0, now, now);
    }

    /// Use since then.
    pub fn usage(&mut self, now: u64) -> Use {
        self.count(now);
        let time = (now - self.since) as f64;
        if time == 0.0 {
            return Use::default();
        }
        Use { used: self.used as f64 / time / f64::from(self.slots), full: self.full as f64 / time }
    }
}
