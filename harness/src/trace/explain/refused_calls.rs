//! Calls that are refused by the thousand while one vCPU waits: the consumer tries again and again what cannot be done.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use crate::trace::story::{Story, Wait};
use mem_event::message::Call;
use mem_event::trace::Remark;
use mem_event::trace::remark::Answer;
use mem_event::{Errno, Input, Outcome, WaitReason};
use std::collections::BTreeMap;

/// So many within one wait are no search but a loop.
const MANY: usize = 1000;

/// A refused call.
#[derive(Clone, Copy, Debug)]
struct Refused {
    /// The step that it is, or of one that never came to the engine, the step after it.
    step: u64,
    kind: &'static str,
    connection: u32,
    errno: Errno,
}

#[derive(Debug)]
struct RefusedCalls {
    found: Found,
    refused: Vec<Refused>,
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "remember what was refused, and answer what waits before trying more";
    Box::new(RefusedCalls { found: Found::new("refused-calls", remedy), refused: Vec::new() })
}

impl Rule for RefusedCalls {
    fn step(&mut self, moment: &Moment<'_>) {
        let step = moment.number;
        for remarked in moment.remarks {
            if let Remark::Called { connection, call, reply: Answer::Refused(errno, _) } = &remarked.remark {
                let kind = match call.call() {
                    Some(Call::Control(control)) => control.name(),
                    _ => "another call",
                };
                self.refused.push(Refused { step, kind, connection: *connection, errno: *errno });
            }
        }
        if let (Input::Control(control), Outcome::Refused(errno, _)) = (&moment.step.input, &moment.step.outcome) {
            let connection = moment.step.connection;
            self.refused.push(Refused { step, kind: control.name(), connection, errno: *errno });
        }
        moment.waits.iter().for_each(|wait| self.wait(wait, moment.story));
        if moment.story.waiting().is_empty() {
            self.refused.clear();
        }
    }

    fn end(&mut self, end: &End<'_>) -> Vec<Finding> {
        end.story.waiting().iter().for_each(|wait| self.wait(wait, end.story));
        self.found.take()
    }
}

impl RefusedCalls {
    fn wait(&mut self, wait: &Wait, story: &Story) {
        let from = self.refused.partition_point(|call| call.step < wait.step);
        let within = &self.refused[from..];
        if within.len() < MANY {
            return;
        }
        let (WaitReason::Answer(ring) | WaitReason::Slot(ring)) = wait.reason else { return };
        self.found.consumer(ring, story, || says(wait, within, story));
    }
}

fn says(wait: &Wait, within: &[Refused], story: &Story) -> (String, Vec<u64>) {
    let mut kinds: BTreeMap<(&str, &str, u32), usize> = BTreeMap::new();
    within.iter().for_each(|call| *kinds.entry((call.kind, call.errno.name(), call.connection)).or_default() += 1);
    let most = kinds.iter().max_by_key(|(_, count)| **count);
    let most = most.map(|((kind, errno, by), count)| {
        format!("{count} times {kind} with {errno} by {}", story.connections.name(*by))
    });
    let most = most.unwrap_or_default();
    let says = format!(
        "{} calls were refused while vCPU {} waited for {} from step {} on: {most}",
        within.len(),
        wait.vcpu,
        wait.whom(),
        wait.step
    );
    let end = wait.end.map(|(step, _)| step);
    (
        says,
        [Some(wait.step), within.first().map(|call| call.step), within.last().map(|call| call.step), end]
            .into_iter()
            .flatten()
            .collect(),
    )
}
