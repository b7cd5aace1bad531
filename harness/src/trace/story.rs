//! What the steps of a trace tell: who waited for what and for whom, which answer belongs to which request, how full the rings were.

use super::row::About;
use mem_event::trace::Step;
use mem_event::{Control, Effect, Gfn, Input, Outcome, Request, Ring, WaitReason};

/// A vCPU's wait for one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who.
    pub vcpu: u32,
    /// For what.
    pub reason: WaitReason,
    /// The step that began it.
    pub step: u64,
    /// When, in nanoseconds.
    pub begin: u64,
    /// The step that ended it, and when; none while it lasts.
    pub end: Option<(u64, u64)>,
    /// The frame that it is about.
    pub gfn: Option<Gfn>,
    /// The instruction pointer, 0 where it is not known.
    pub rip: u64,
    /// See [`mem_event::trace::Context::code`].
    pub code: Vec<u8>,
    /// The vCPUs whose requests held the slots that it waited for.
    pub holders: Vec<u32>,
}

impl Wait {
    /// How long it took, or has taken by the end of the trace.
    #[must_use]
    pub fn length(&self, last: u64) -> u64 {
        self.end.map_or(last, |(_, time)| time).saturating_sub(self.begin)
    }

    /// For whom.
    #[must_use]
    pub fn whom(&self) -> String {
        match self.reason {
            WaitReason::Answer(ring) => format!("{}'s answer", consumer(ring)),
            WaitReason::Slot(ring) => format!("a slot of the {ring} ring"),
            WaitReason::Consumer(ring) => format!("somebody to take the {ring} ring"),
            WaitReason::Frame => "a frame within the budget".into(),
        }
    }
}

/// Who sits at the other end of a ring.
#[must_use]
pub fn consumer(ring: Ring) -> &'static str {
    match ring {
        Ring::Paging => "the pager",
        Ring::Access => "the listener",
        Ring::Sharing => "the memory helper",
    }
}

/// A request and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The ring.
    pub ring: Ring,
    /// The slot.
    pub slot: u32,
    /// The request.
    pub request: Request,
    /// The step that made it, and when.
    pub asked: (u64, u64),
    /// The step that took its answer, and when.
    pub answered: Option<(u64, u64)>,
}

/// How things stand after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// When.
    pub time: u64,
    /// Slots of each ring, 0 where there is none.
    pub slots: [u32; 3],
    /// Requests without an answer on each ring.
    pub out: [u32; 3],
    /// vCPUs that wait.
    pub sleepers: u32,
}

/// Follows the steps. What has ended is in [`Story::waits`] and [`Story::exchanges`], for the caller to take.
#[derive(Debug, Default)]
pub struct Story {
    /// Waits that have ended.
    pub waits: Vec<Wait>,
    /// Requests whose answer was taken.
    pub exchanges: Vec<Exchange>,
    /// How things stand.
    pub level: Level,
    open_waits: Vec<Wait>,
    open_requests: Vec<Exchange>,
}

impl Story {
    /// The next step.
    pub fn step(&mut self, number: u64, step: &Step) {
        let now = (number, step.time);
        for effect in &step.effects.list {
            self.effect(effect, now);
        }
        if let (Input::Control(Control::Enable { ring, layout, slots }), Outcome::Proceed) =
            (&step.input, &step.outcome)
        {
            self.level.slots[ring.index()] = if *slots == 0 { layout.max_slots() } else { *slots };
        }
        self.outcome(now, step);
        self.count(step.time);
    }

    fn effect(&mut self, effect: &Effect, now: (u64, u64)) {
        match effect {
            Effect::Requested { ring, slot, request } => {
                let (ring, slot, request) = (*ring, *slot, *request);
                self.open_requests.retain(|open| open.ring != ring || open.slot != slot);
                self.open_requests.push(Exchange { ring, slot, request, asked: now, answered: None });
            }
            Effect::Answered { ring, response, .. } => {
                let of_ring = |open: &Exchange| open.ring == *ring;
                let exact = |open: &Exchange| {
                    of_ring(open)
                        && open.request.vcpu.0 == response.vcpu
                        && open.request.event.subject() == response.subject()
                };
                let open = &self.open_requests;
                if let Some(at) = open.iter().position(exact).or_else(|| open.iter().position(of_ring)) {
                    let exchange = self.open_requests.remove(at);
                    self.exchanges.push(Exchange { answered: Some(now), ..exchange });
                }
            }
            Effect::Wake(vcpu) => self.end_wait(vcpu.0, now),
            Effect::Closed(ring) => {
                self.level.slots[ring.index()] = 0;
                self.open_requests.retain(|open| open.ring != *ring);
            }
            _ => {}
        }
    }

    fn outcome(&mut self, now: (u64, u64), step: &Step) {
        let About { vcpu: Some(vcpu), gfn, rip, .. } = About::of(&step.input) else { return };
        if matches!(step.input, Input::Control(_)) {
            return;
        }
        let Outcome::Wait(reason) = step.outcome else {
            self.end_wait(vcpu, now);
            return;
        };
        if self.open_waits.iter().any(|open| open.vcpu == vcpu && open.reason == reason) {
            return;
        }
        self.end_wait(vcpu, now);
        let holders = match reason {
            WaitReason::Slot(ring) => {
                let held = self.open_requests.iter().filter(|open| open.ring == ring);
                let mut holders: Vec<u32> = held.map(|open| open.request.vcpu.0).collect();
                holders.sort_unstable();
                holders.dedup();
                holders
            }
            _ => Vec::new(),
        };
        let code = step.code.clone();
        self.open_waits.push(Wait { vcpu, reason, step: now.0, begin: now.1, end: None, gfn, rip, code, holders });
    }

    fn end_wait(&mut self, vcpu: u32, now: (u64, u64)) {
        if let Some(at) = self.open_waits.iter().position(|open| open.vcpu == vcpu) {
            let wait = self.open_waits.remove(at);
            self.waits.push(Wait { end: Some(now), ..wait });
        }
    }

    fn count(&mut self, time: u64) {
        let out = |ring| self.open_requests.iter().filter(|open| open.ring == ring).count();
        let short = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.level.time = time;
        self.level.out = Ring::ALL.map(|ring| short(out(ring)));
        self.level.sleepers = short(self.open_waits.len());
    }

    /// The end of the trace: what lasts is among the rest, without an end.
    pub fn finish(&mut self) {
        self.waits.append(&mut self.open_waits);
        self.exchanges.append(&mut self.open_requests);
    }
}
