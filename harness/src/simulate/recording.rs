//! What a recorded run tells a simulation: how long each vCPU worked between its events, how long a consumer took for a request, how long a
//! vCPU that was woken for a slot took to use it; and what the run itself came to, to compare with.
//!
//! A service is taken from its answer back to its request, or to the answer before it where the consumer was busy until then. That is so for
//! one consumer that answers in the order of requests; of several the services come out as those of one that is as fast as all of them.

use super::arrival::Arrival;
use super::figures::Times;
use super::law::Law;
use super::tally::Waits;
use crate::refusal::Refusal;
use crate::trace::open;
use crate::trace::story::{Exchange, Story, Wait};
use mem_event::{Ring, WaitReason};
use serde::Serialize;
use std::path::Path;

/// A run, as far as one ring goes.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What came of it.
    pub figures: Recorded,
    /// Times between events.
    pub think: Arrival,
    /// Times of services.
    pub service: Law,
    /// From a vCPU's being woken for a slot to its request.
    pub wake: Law,
}

/// A recorded run in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recorded {
    /// The ring with the most requests.
    pub ring: String,
    /// vCPUs that made events on it.
    pub vcpus: u32,
    /// Its slots.
    pub slots: u32,
    /// Its events.
    pub events: u64,
    /// vCPUs over the time from one event to the next: answers a second while all of them are at it.
    pub per_second: f64,
    /// How long vCPUs stood still for an event, in nanoseconds.
    pub stopped: Times,
    /// How much of it until the request was put.
    pub slot: Times,
    /// And from then on.
    pub answer: Times,
}

/// An event of a vCPU: when it began, when its request was put, when its vCPU was woken for the answer, and how long it took to use its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Event {
    vcpu: u32,
    begin: u64,
    put: u64,
    end: u64,
    woken: Option<u64>,
}

impl Recording {
    /// Reads a trace to its end, or as far as it can be read.
    ///
    /// # Errors
    /// No trace, or one in which no vCPU made two events on a ring that were answered.
    pub fn read(path: &Path) -> anyhow::Result<Recording> {
        let mut tape = open(path)?;
        let (mut story, mut slots) = (Story::default(), [0; 3]);
        for number in 1..=tape.len() {
            let Ok(step) = tape.step(number) else { break };
            story.step(number, step);
            for (most, now) in slots.iter_mut().zip(story.level.slots) {
                *most = now.max(*most);
            }
        }
        let few = || {
            Refusal::usage(
                format!("{} has no vCPU with two events that were answered", path.display()),
                "record a run in which vCPUs are stopped again and again, as `mem-event run smp_storm --trace FILE`",
            )
        };
        let requests = |ring: &Ring| story.exchanges.iter().filter(|it| it.ring == *ring).count();
        let ring = Ring::ALL.into_iter().max_by_key(requests).ok_or_else(few)?;
        let events = events(&story.waits, ring);
        let exchanges: Vec<&Exchange> = story.exchanges.iter().filter(|it| it.ring == ring).collect();
        Ok(Recording::of(ring, slots[ring.index()], &events, &exchanges).ok_or_else(few)?)
    }

    fn of(ring: Ring, slots: u32, events: &[Event], exchanges: &[&Exchange]) -> Option<Recording> {
        let think = thinks(events);
        let vcpus = u32::try_from(think.len()).ok()?;
        let works: Vec<u64> = think.iter().flat_map(|times| times.iter().skip(1).copied()).collect();
        if works.is_empty() {
            return None;
        }
        let [mut stopped, mut slot, mut answer] = [(); 3].map(|()| Waits::new());
        for event in events {
            stopped.add(event.end - event.begin);
            slot.add(event.put - event.begin);
            answer.add(event.end - event.put);
        }
        let work = works.iter().sum::<u64>() as f64 / works.len() as f64;
        let figures = Recorded {
            ring: ring.to_string(),
            vcpus,
            slots,
            events: events.len() as u64,
            per_second: f64::from(vcpus) / (work + stopped.mean()) * 1e9,
            stopped: Times::from(&stopped),
            slot: Times::from(&slot),
            answer: Times::from(&answer),
        };
        let woken: Vec<u64> = events.iter().filter_map(|event| event.woken).collect();
        let wake = Law::of(woken, "the trace").unwrap_or(Law::Constant(0));
        let service = Law::of(services(exchanges), "the trace").ok()?;
        Some(Recording { figures, think: Arrival::Recorded(think.into()), service, wake })
    }
}

/// The waits of a ring, put together: one for a slot and one for the answer are one event.
fn events(waits: &[Wait], ring: Ring) -> Vec<Event> {
    let mut waits: Vec<&Wait> = waits.iter().filter(|wait| wait.end.is_some()).collect();
    waits.sort_by_key(|wait| (wait.vcpu, wait.step));
    let (mut events, mut for_a_slot) = (Vec::new(), None::<(u32, u64, u64)>);
    for wait in waits {
        let (vcpu, begin, end) = (wait.vcpu, wait.begin, wait.end.map_or(wait.begin, |(_, time)| time));
        match wait.reason {
            WaitReason::Slot(of) if of == ring => {
                let (_, since, _) = for_a_slot.filter(|(who, ..)| *who == vcpu).unwrap_or((vcpu, begin, end));
                for_a_slot = Some((vcpu, since, end));
            }
            WaitReason::Answer(of) if of == ring => {
                let slot = for_a_slot.take().filter(|(who, ..)| *who == vcpu);
                let since = slot.map_or(begin, |(_, since, _)| since);
                let woken = slot.map(|(_, _, woken)| begin.saturating_sub(woken));
                events.push(Event { vcpu, begin: since, put: begin, end, woken });
            }
            _ => for_a_slot = None,
        }
    }
    events
}

/// Of each vCPU the time until its first event, and then those from one event's end to the next one's begin.
fn thinks(events: &[Event]) -> Vec<Vec<u64>> {
    let first = events.iter().map(|event| event.begin).min().unwrap_or(0);
    let of_vcpu = |events: &[Event]| {
        let start = events.first().map(|event| event.begin - first);
        let works = events.windows(2).map(|two| two[1].begin.saturating_sub(two[0].end));
        start.into_iter().chain(works).collect()
    };
    events.chunk_by(|one, other| one.vcpu == other.vcpu).map(of_vcpu).collect()
}

fn services(exchanges: &[&Exchange]) -> Vec<u64> {
    let answered = exchanges.iter().filter_map(|it| it.answer.map(|answer| (answer.time, answer.step, it.asked.1)));
    let mut answered: Vec<(u64, u64, u64)> = answered.collect();
    answered.sort_unstable();
    let mut before = 0;
    let service = |(answer, _, asked): (u64, u64, u64)| {
        let service = answer - asked.max(before).min(answer);
        before = answer;
        service
    };
    answered.into_iter().map(service).collect()
}

#[cfg(test)]
mod tests {
    use super::{Event, events, thinks};
    use crate::trace::story::Wait;
    use mem_event::{Ring, WaitReason};

    fn wait(vcpu: u32, reason: WaitReason, step: u64, begin: u64, end: u64) -> Wait {
        let end = Some((step + 1, end));
        Wait { vcpu, reason, step, begin, end, gfn: None, rip: 0, code: Vec::new(), holders: Vec::new() }
    }

    #[test]
    fn a_wait_for_a_slot_and_one_for_the_answer_are_one_event_and_what_lies_between_events_is_work() {
        let (slot, answer) = (WaitReason::Slot(Ring::Access), WaitReason::Answer(Ring::Access));
        let waits = [
            wait(1, answer, 9, 50, 70),
            wait(0, slot, 1, 10, 30),
            wait(0, answer, 2, 35, 60),
            wait(0, answer, 5, 100, 130),
            wait(0, WaitReason::Answer(Ring::Paging), 7, 200, 230),
        ];
        let events = events(&waits, Ring::Access);
        let first = Event { vcpu: 0, begin: 10, put: 35, end: 60, woken: Some(5) };
        let second = Event { vcpu: 0, begin: 100, put: 100, end: 130, woken: None };
        assert_eq!(events[..2], [first, second]);
        assert_eq!(thinks(&events), [vec![0, 40], vec![40]]);
    }
}
