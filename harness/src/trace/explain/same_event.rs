//! The same event again after each answer, since what forbade the access is as it was: the rights did not change, the frame's content was
//! not loaded, no memory became free.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use crate::trace::story::{Answer, consumer};
use mem_event::{About, AccessType, Control, Effect, Event, Flags, Gfn, Input, Outcome, Request, Ring};

/// An event that comes so often with nothing changed comes for ever.
const OFTEN: usize = 3;

/// One event of one vCPU, again and again.
#[derive(Debug)]
struct Run {
    ring: Ring,
    request: Request,
    asked: Vec<u64>,
    is_answered: bool,
    /// Rights that were set meanwhile and still forbid it, and the step.
    too_few: Option<(u64, AccessType)>,
}

#[derive(Debug)]
struct SameEvent {
    found: Found,
    runs: Vec<Run>,
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "before the answer grant the rights, load the frame, or make room";
    Box::new(SameEvent { found: Found::new("same-event", remedy), runs: Vec::new() })
}

impl Rule for SameEvent {
    fn step(&mut self, moment: &Moment<'_>) {
        for exchange in moment.exchanges {
            let Some(answer) = exchange.answer.filter(|answer| answer.fits) else { continue };
            let is_of = |run: &Run| run.ring == exchange.ring && run.request == exchange.request;
            if lets_through(&answer) {
                self.runs.retain(|run| !is_of(run));
            }
            self.runs.iter_mut().filter(|run| is_of(run)).for_each(|run| run.is_answered = true);
        }
        self.forget_what_changed(moment);
        for effect in &moment.step.effects.list {
            if let Effect::Requested { ring, request, .. } = effect {
                self.asked(*ring, request, moment);
            }
        }
    }

    fn end(&mut self, _: &End<'_>) -> Vec<Finding> {
        self.found.take()
    }
}

impl SameEvent {
    fn asked(&mut self, ring: Ring, request: &Request, moment: &Moment<'_>) {
        let stops = request.flags.contains(Flags::VCPU_PAUSED) && !request.flags.contains(Flags::FOREIGN);
        if !stops || matches!(request.event, Event::Cpu(_)) {
            return;
        }
        let same = |run: &Run| run.ring == ring && run.request.vcpu == request.vcpu;
        let run = match self.runs.iter_mut().find(|run| same(run)) {
            Some(run) if is_the_same(&run.request, request) => {
                if !run.is_answered {
                    // It is put again for a successor.
                    return;
                }
                run
            }
            other => {
                let new = Run { ring, request: *request, asked: Vec::new(), is_answered: false, too_few: None };
                match other {
                    Some(run) => *run = new,
                    None => self.runs.push(new),
                }
                let Some(run) = self.runs.iter_mut().find(|run| same(run)) else { return };
                run
            }
        };
        (run.request, run.is_answered) = (*request, false);
        if run.asked.len() < OFTEN {
            run.asked.push(moment.number);
        }
        if run.asked.len() == OFTEN {
            let (asked, too_few) = (run.asked.clone(), run.too_few);
            self.found.consumer(ring, moment.story, || (says(ring, request, &asked, too_few, moment), asked));
        }
    }

    fn forget_what_changed(&mut self, moment: &Moment<'_>) {
        if let (Input::Control(control), Outcome::Proceed) = (&moment.step.input, &moment.step.outcome) {
            match *control {
                Control::SetAccess { first, count, access } => {
                    self.rights_were_set((first, count), access, moment.number)
                }
                Control::SetBudget { .. } => self.runs.retain(|run| run.ring != Ring::Sharing),
                _ => {}
            }
        }
        if let Input::Emulated { vcpu } = moment.step.input {
            // The access was done, and what comes is another one.
            self.runs.retain(|run| run.ring != Ring::Access || run.request.vcpu != vcpu);
        }
        for effect in &moment.step.effects.list {
            match effect {
                Effect::Map(gfn) | Effect::Fill(gfn) | Effect::Zero(gfn) => {
                    self.runs.retain(|run| run.ring != Ring::Paging || run.request.frame() != Some(*gfn));
                }
                // It was put elsewhere, and came back; or goes by another view, by which it did the access.
                Effect::SetRegisters { vcpu, .. } | Effect::Switched(vcpu) => {
                    self.runs.retain(|run| run.request.vcpu != *vcpu)
                }
                Effect::Punch(_) => self.runs.retain(|run| run.ring != Ring::Sharing),
                _ => {}
            }
        }
    }

    fn rights_were_set(&mut self, (first, count): (Gfn, u64), access: AccessType, step: u64) {
        let covers = |gfn: Gfn| gfn.0.checked_sub(first.0).is_some_and(|at| at < count);
        self.runs.retain_mut(|run| {
            if run.ring != Ring::Access || !run.request.frame().is_some_and(covers) {
                return true;
            }
            run.too_few = Some((step, access));
            !access.rights().contains(run.request.event.rights())
        });
    }
}

/// Whether an answer lets the access through whatever the rights are: where it comes again, an interrupt came first, and the grant went with it.
fn lets_through(answer: &Answer) -> bool {
    let response = &answer.response;
    let is_violation = matches!(response.about, About::Event(Event::Violation { .. }));
    is_violation && response.flags.contains(Flags::EMULATE.union(Flags::VCPU_PAUSED))
}

/// Whether two requests are of one access, however the frame's type has changed meanwhile.
fn is_the_same(one: &Request, other: &Request) -> bool {
    let place = |request: &Request| match request.event {
        Event::Violation { gfn, offset, gla, rights, .. } => (gfn, offset, gla, rights.bits()),
        event => (event.frame().unwrap_or_default(), 0, None, 0),
    };
    place(one) == place(other)
}

fn says(
    ring: Ring,
    request: &Request,
    asked: &[u64],
    too_few: Option<(u64, AccessType)>,
    moment: &Moment<'_>,
) -> String {
    let (event, steps) = (words::event(request, moment.symbols), words::steps(asked));
    let why = match (ring, too_few) {
        (Ring::Access, Some((step, access))) => format!("the rights of step {step}, {access}, still forbid it"),
        (Ring::Access, None) => "the frame's rights did not change".to_owned(),
        (Ring::Paging, _) => "the frame was not loaded".to_owned(),
        (Ring::Sharing, _) => "no memory became free".to_owned(),
    };
    format!("{event} came again after each of {}'s answers (steps {steps}): {why}", consumer(ring))
}
