//! A response producer index that no right consumer writes: it answered more often than it was asked, or wrote the index wrongly. The ring
//! is broken from then on.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use crate::trace::story::consumer;
use mem_event::Effect;

#[derive(Debug)]
struct BrokenRing {
    found: Found,
    /// The last answer that was taken from each ring.
    last: [Option<u64>; 3],
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "answer each request once, and add one to rsp_prod for each answer";
    Box::new(BrokenRing { found: Found::new("broken-ring", remedy), last: [None; 3] })
}

impl Rule for BrokenRing {
    fn step(&mut self, moment: &Moment<'_>) {
        for effect in &moment.step.effects.list {
            let Effect::Broken(ring, why) = effect else { continue };
            let (step, before) = (moment.number, self.last[ring.index()]);
            self.found.consumer(*ring, moment.story, || {
                let who = consumer(*ring);
                let says = format!(
                    "{who} gave more answers than it was asked for (step {step}: {why}); the {ring} ring is broken"
                );
                (says, before.into_iter().chain([step]).collect())
            });
        }
        for exchange in moment.exchanges {
            self.last[exchange.ring.index()] = Some(moment.number);
        }
    }

    fn end(&mut self, _: &End<'_>) -> Vec<Finding> {
        self.found.take()
    }
}
