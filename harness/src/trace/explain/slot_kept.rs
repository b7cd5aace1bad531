//! A slot that is never given back: a request that stops nobody and was left without an answer, while later ones of its ring had theirs. The
//! ring has one slot less from then on.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use crate::trace::story::{Exchange, consumer};
use mem_event::{Flags, Input};

#[derive(Debug)]
struct SlotKept {
    found: Found,
    /// Of each ring the latest request that was answered, by the step that made it, and its answer's step.
    latest: [(u64, u64); 3],
    is_lost: [bool; 3],
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "answer also the requests that pause no vCPU (VCPU_PAUSED is not set), so that their slots come back";
    Box::new(SlotKept { found: Found::new("slot-kept", remedy), latest: [(0, 0); 3], is_lost: [false; 3] })
}

impl Rule for SlotKept {
    fn step(&mut self, moment: &Moment<'_>) {
        for exchange in moment.exchanges {
            let latest = &mut self.latest[exchange.ring.index()];
            if exchange.asked.0 > latest.0 {
                *latest = (exchange.asked.0, moment.number);
            }
        }
        match &moment.step.input {
            Input::ConsumerLost { ring } => self.is_lost[ring.index()] = true,
            Input::Control(mem_event::Control::Enable { ring, .. }) => self.is_lost[ring.index()] = false,
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>) -> Vec<Finding> {
        let is_kept = |open: &&Exchange| {
            let at = open.ring.index();
            !open.request.flags.contains(Flags::VCPU_PAUSED) && open.asked.0 < self.latest[at].0 && !self.is_lost[at]
        };
        let kept: Vec<&Exchange> = end.story.out().iter().filter(is_kept).collect();
        for open in &kept {
            let count = kept.iter().filter(|it| it.ring == open.ring).count();
            let (slots, step) = (end.story.level.slots[open.ring.index()], self.latest[open.ring.index()].1);
            self.found.consumer(open.ring, end.story, || {
                let (who, event) = (consumer(open.ring), words::asked(open, end.symbols));
                let kept = if count == 1 { "one slot".to_owned() } else { format!("{count} slots") };
                let verb = if count == 1 { "is" } else { "are" };
                let says = format!("{who} never gave back the slot of {event}, and answered later ones (up to step {step}): {kept} of {slots} {verb} lost");
                (says, vec![open.asked.0, step])
            });
        }
        self.found.take()
    }
}
