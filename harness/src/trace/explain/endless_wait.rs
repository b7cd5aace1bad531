//! A wait that lasts when the trace ends, and the answer that should have ended it.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use crate::trace::row::{duration, vcpu_of};
use crate::trace::story::{Exchange, Wait, consumer};
use mem_event::{Flags, Input, Ring, WaitReason};
use std::collections::HashMap;

/// An answer that meant a vCPU and did not wake it.
#[derive(Clone, Debug)]
struct Missed {
    asked: u64,
    step: u64,
    why: String,
}

#[derive(Debug)]
struct EndlessWait {
    found: Found,
    missed: HashMap<(Ring, u32), Missed>,
    /// The step in which each ring lost its consumer.
    lost: [Option<u64>; 3],
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "answer each request, with its flags, vCPU and gfn, and signal";
    Box::new(EndlessWait { found: Found::new("endless-wait", remedy), missed: HashMap::new(), lost: [None; 3] })
}

impl Rule for EndlessWait {
    fn step(&mut self, moment: &Moment<'_>) {
        for exchange in moment.exchanges {
            if let (Some(vcpu), Some(missed)) = (vcpu_of(&exchange.request), missed(exchange)) {
                self.missed.insert((exchange.ring, vcpu.0), missed);
            }
        }
        match &moment.step.input {
            Input::ConsumerLost { ring } => {
                self.lost[ring.index()].get_or_insert(moment.number);
            }
            Input::Control(mem_event::Control::Enable { ring, .. }) => self.lost[ring.index()] = None,
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>) -> Vec<Finding> {
        for wait in end.story.waiting() {
            let (why, mut steps) = self.why(wait, end);
            steps.insert(0, wait.step);
            let place = wait.gfn.map(|gfn| format!(" on frame {}", words::place(gfn, None, end.symbols)));
            let says = format!(
                "vCPU {} waits for {}{} from step {} to the end, {}: {why}",
                wait.vcpu,
                wait.whom(),
                place.unwrap_or_default(),
                wait.step,
                duration(wait.length(end.time)),
            );
            self.found.add(format!("vCPU {}", wait.vcpu), None, end.story, || (says, steps));
        }
        self.found.take()
    }
}

/// Why an answer did not wake the vCPU of the request whose slot it took.
fn missed(exchange: &Exchange) -> Option<Missed> {
    let answer = exchange.answer.filter(|_| exchange.request.flags.contains(Flags::VCPU_PAUSED))?;
    let (response, step) = (&answer.response, answer.step);
    let why = if let Some(version) = response.other_version {
        format!("is of version {version}")
    } else if response.flags.contains(Flags::DUMMY) {
        "carries DUMMY".to_owned()
    } else if !answer.fits {
        format!("names vCPU {} and gfn {:#x}", response.vcpu, response.subject())
    } else if !response.flags.contains(Flags::VCPU_PAUSED) {
        "lacks VCPU_PAUSED".to_owned()
    } else {
        return None;
    };
    Some(Missed { asked: exchange.asked.0, step, why })
}

impl EndlessWait {
    /// What keeps a wait from its end, and the steps that show it.
    fn why(&self, wait: &Wait, end: &End<'_>) -> (String, Vec<u64>) {
        let out = |ring: Ring| end.story.out().iter().filter(move |open| open.ring == ring);
        match wait.reason {
            WaitReason::Answer(ring) => {
                if let Some(missed) = self.missed.get(&(ring, wait.vcpu)).filter(|it| it.asked >= wait.step) {
                    let Missed { step, why, .. } = missed;
                    return (format!("the answer of step {step} should have ended it, and {why}"), vec![*step]);
                }
                match self.lost[ring.index()] {
                    Some(step) => (format!("{} was gone in step {step} and no other came", consumer(ring)), vec![step]),
                    None => {
                        let slot = out(ring).find(|open| vcpu_of(&open.request).is_some_and(|it| it.0 == wait.vcpu));
                        let slot = slot.map(|open| format!(" (slot {})", open.slot)).unwrap_or_default();
                        (format!("no answer to its request{slot} came"), Vec::new())
                    }
                }
            }
            WaitReason::Slot(ring) => {
                let held: Vec<u64> = out(ring).map(|open| open.asked.0).collect();
                let requests = words::count(held.len(), "request", "requests");
                (format!("the slots are held by {requests} without an answer (steps {})", words::steps(&held)), held)
            }
            WaitReason::Consumer(ring) => {
                let since = self.lost[ring.index()];
                let gone = since
                    .map_or_else(|| "there is none".to_owned(), |step| format!("the last was gone in step {step}"));
                (gone, since.into_iter().collect())
            }
            WaitReason::Frame => ("the budget is used up and nothing was evicted".to_owned(), Vec::new()),
        }
    }
}
