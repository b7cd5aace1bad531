//! What the steps of a trace tell: who waited for what and for whom, which answer belongs to which request, how full the rings were.

use super::row::About;
use crate::toolstack::connections::Connections;
use mem_event::trace::Step;
use mem_event::{Control, Effect, Flags, Gfn, Input, Outcome, Request, Response, Ring, WaitReason};

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

/// A request and the answer that gave its slot back.
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
    /// The answer; none while the request is out.
    pub answer: Option<Answer>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The step that took it.
    pub step: u64,
    /// When, in nanoseconds.
    pub time: u64,
    /// What the consumer wrote.
    pub response: Response,
    /// Whether it names the vCPU and the subject of the request. One that names none that is out frees a slot all the same.
    pub fits: bool,
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
    /// The connection that enabled each ring last; 0 where none is known.
    pub owners: [u32; 3],
    /// Whose connections are.
    pub connections: Connections,
    open_waits: Vec<Wait>,
    open_requests: Vec<Exchange>,
}

/// Which of the requests that are out an answer settles, as the engine has it, and whether it names that request: the one with its vCPU
/// and subject, else the foreign one with its subject. One that names none settles a request that stops nobody, else the oldest. One that has its
/// vCPU step names the vCPU alone: the view that it goes by then stands where a subject would.
fn settled(open: &[Exchange], ring: Ring, response: &Response) -> Option<(usize, bool)> {
    let find = |wanted: &dyn Fn(&Request) -> bool| open.iter().position(|it| it.ring == ring && wanted(&it.request));
    let subject = |request: &Request| request.event.subject() == response.subject();
    let steps = response.flags.contains(Flags::FAST_SINGLESTEP);
    let same = |request: &Request| (steps || subject(request)) && request.vcpu.0 == response.vcpu;
    let pauses = |flags: Flags| flags.contains(Flags::VCPU_PAUSED);
    let exact = find(&|request| same(request) && pauses(request.flags) == pauses(response.flags));
    let named = exact.or_else(|| find(&same));
    let named = named.or_else(|| find(&|request| subject(request) && request.flags.contains(Flags::FOREIGN)));
    let any = || find(&|request| !pauses(request.flags)).or_else(|| find(&|_| true));
    named.map(|at| (at, true)).or_else(|| any().map(|at| (at, false)))
}

impl Story {
    /// The next step.
    pub fn step(&mut self, number: u64, step: &Step) {
        let now = (number, step.time);
        let left = self.left_for_a_successor(step);
        for effect in &step.effects.list {
            self.effect(effect, now);
        }
        for first in left {
            // Put again for a successor, it was asked when it was asked first.
            let mut again = self.open_requests.iter_mut().filter(|open| open.asked == now);
            if let Some(open) = again.find(|open| open.request == first.request) {
                open.asked = first.asked;
            }
        }
        if let (Input::Control(Control::Enable { ring, layout, slots }), Outcome::Proceed) =
            (&step.input, &step.outcome)
        {
            self.owners[ring.index()] = step.connection;
            self.level.slots[ring.index()] = if *slots == 0 { layout.max_slots() } else { *slots };
        }
        self.outcome(now, step);
        self.count(step.time);
    }

    /// The requests of a ring that the step enables: those that count are put again.
    fn left_for_a_successor(&mut self, step: &Step) -> Vec<Exchange> {
        match (&step.input, &step.outcome) {
            (Input::Control(Control::Enable { ring, .. }), Outcome::Proceed) => {
                self.open_requests.extract_if(.., |open| open.ring == *ring).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The requests that are out, the oldest first.
    #[must_use]
    pub fn out(&self) -> &[Exchange] {
        &self.open_requests
    }

    /// The waits that last.
    #[must_use]
    pub fn waiting(&self) -> &[Wait] {
        &self.open_waits
    }

    fn effect(&mut self, effect: &Effect, now: (u64, u64)) {
        match effect {
            Effect::Requested { ring, slot, request } => {
                let (ring, slot, request) = (*ring, *slot, *request);
                self.open_requests.push(Exchange { ring, slot, request, asked: now, answer: None });
            }
            Effect::Answered { ring, response, .. } => {
                if let Some((at, fits)) = settled(&self.open_requests, *ring, response) {
                    let exchange = self.open_requests.remove(at);
                    let answer = Answer { step: now.0, time: now.1, response: *response, fits };
                    self.exchanges.push(Exchange { answer: Some(answer), ..exchange });
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
