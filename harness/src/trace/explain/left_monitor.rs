//! A monitor or single steps that are still on when the listener is gone and no successor has come: each such event stops its vCPU, or does
//! what the ring's setting says, and nobody takes it.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use mem_event::{Control, Effect, Input, MonitorMode, Outcome, Ring};
use std::collections::BTreeMap;

#[derive(Debug)]
struct LeftMonitor {
    found: Found,
    /// What is on, and the step that put it on.
    on: BTreeMap<String, u64>,
    /// The step in which the listener was lost.
    lost: Option<u64>,
    /// The first event that found nobody.
    unheard: Option<u64>,
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy =
        "switch monitors and single steps off before leaving; `mem-event status` frees a domain of what is left";
    Box::new(LeftMonitor { found: Found::new("left-monitor", remedy), on: BTreeMap::new(), lost: None, unheard: None })
}

impl Rule for LeftMonitor {
    fn step(&mut self, moment: &Moment<'_>) {
        let number = moment.number;
        match (&moment.step.input, &moment.step.outcome) {
            (Input::ConsumerLost { ring: Ring::Access }, _) => {
                // The connection of one that has ended its ring leaves nobody waiting.
                let has_ring = moment.story.level.slots[Ring::Access.index()] > 0;
                self.lost = Some(number).filter(|_| has_ring && !self.on.is_empty());
            }
            (Input::Control(control), Outcome::Proceed) => self.control(control, number),
            (Input::CpuEvent { .. }, _) if self.lost.is_some() => drop(self.unheard.get_or_insert(number)),
            _ => {}
        }
        if moment.step.effects.list.contains(&Effect::Closed(Ring::Access)) {
            // What was monitored ends with its ring.
            self.on.clear();
            self.lost = None;
        }
    }

    fn end(&mut self, end: &End<'_>) -> Vec<Finding> {
        if let Some(lost) = self.lost.filter(|_| !self.on.is_empty()) {
            let names: Vec<&str> = self.on.keys().map(String::as_str).collect();
            let steps: Vec<u64> = self.on.values().copied().take(1).chain([lost]).chain(self.unheard).collect();
            let met =
                self.unheard.map(|step| format!("; step {step} is an event that nobody takes")).unwrap_or_default();
            let says = format!(
                "the listener was gone in step {lost} and left {} on, and no other came{met}",
                names.join(", ")
            );
            self.found.consumer(Ring::Access, end.story, || (says, steps));
        }
        self.found.take()
    }
}

impl LeftMonitor {
    fn control(&mut self, control: &Control, number: u64) {
        let (name, is_on) = match control {
            Control::Monitor { kind, mode, .. } => {
                (format!("the monitor of {}", kind.name()), *mode != MonitorMode::Disabled)
            }
            Control::SingleStep { vcpu, on } => (format!("single steps of vCPU {vcpu}"), *on),
            Control::Enable { ring: Ring::Access, .. } => {
                (self.lost, self.unheard) = (None, None);
                return;
            }
            _ => return,
        };
        if is_on {
            self.on.insert(name, number);
        } else {
            self.on.remove(&name);
        }
    }
}
