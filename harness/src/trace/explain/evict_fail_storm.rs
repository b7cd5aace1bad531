//! Frames that are nominated and touched before they are evicted, most of the time: the pager chooses what the guest uses, or waits long
//! between nominate and evict.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use mem_event::{Control, Effect, Flags, Gfn, Input, Outcome, Ring};
use std::collections::HashMap;

/// Fewer are chance.
const MANY: u64 = 64;

#[derive(Debug)]
struct EvictFailStorm {
    found: Found,
    nominated: u64,
    failed: u64,
    /// Of each frame that failed: how often, the last nomination before its first failure, and that failure.
    frames: HashMap<Gfn, (u64, u64, u64)>,
    /// When each frame that may still fail was nominated.
    pending: HashMap<Gfn, u64>,
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "nominate frames that were not touched lately, and evict them soon after";
    Box::new(EvictFailStorm {
        found: Found::new("evict-fail-storm", remedy),
        nominated: 0,
        failed: 0,
        frames: HashMap::new(),
        pending: HashMap::new(),
    })
}

impl Rule for EvictFailStorm {
    fn step(&mut self, moment: &Moment<'_>) {
        match (&moment.step.input, &moment.step.outcome) {
            (Input::Control(Control::Nominate { gfn }), Outcome::Proceed) => {
                self.nominated += 1;
                self.pending.insert(*gfn, moment.number);
            }
            (Input::Control(Control::Evict { gfn }), Outcome::Proceed) => drop(self.pending.remove(gfn)),
            _ => {}
        }
        for effect in &moment.step.effects.list {
            let Effect::Requested { ring: Ring::Paging, request, .. } = effect else { continue };
            if let Some(gfn) = request.frame().filter(|_| request.flags.contains(Flags::EVICT_FAIL))
                && let Some(nominated) = self.pending.remove(&gfn)
            {
                self.failed += 1;
                self.frames.entry(gfn).or_insert((0, nominated, moment.number)).0 += 1;
            }
        }
    }

    fn end(&mut self, end: &End<'_>) -> Vec<Finding> {
        let (failed, nominated) = (self.failed, self.nominated);
        let worst = self.frames.iter().max_by_key(|(gfn, (times, ..))| (*times, std::cmp::Reverse(**gfn)));
        if let Some((gfn, (times, step, touched))) = worst
            && failed >= MANY
            && failed * 2 >= nominated
        {
            self.found.consumer(Ring::Paging, end.story, || {
                let frame = words::place(*gfn, None, end.symbols);
                let says = format!(
                    "of {nominated} frames that the pager nominated {failed} were touched before it evicted them (EVICT_FAIL), frame {frame} \
                     {times} times: nominated in step {step}, touched in step {touched}"
                );
                (says, vec![*step, *touched])
            });
        }
        self.found.take()
    }
}
