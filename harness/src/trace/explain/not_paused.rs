//! An answer without VCPU_PAUSED to an event that stopped its vCPU: the slot is free, and nobody is woken.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use mem_event::Flags;

#[derive(Debug)]
struct NotPaused(Found);

pub(super) fn rule() -> Box<dyn Rule> {
    Box::new(NotPaused(Found::new("no-vcpu-paused", "copy the request's flags into the answer")))
}

impl Rule for NotPaused {
    fn step(&mut self, moment: &Moment<'_>) {
        for exchange in moment.exchanges {
            let Some(answer) = exchange.answer.filter(|answer| answer.fits) else { continue };
            let (asked, given) = (exchange.request.flags, answer.response.flags);
            let stopped = asked.contains(Flags::VCPU_PAUSED) && !asked.contains(Flags::FOREIGN);
            if !stopped || given.contains(Flags::VCPU_PAUSED) || given.contains(Flags::DUMMY) {
                continue;
            }
            self.0.consumer(exchange.ring, moment.story, || {
                let (vcpu, step) = (exchange.request.vcpu, answer.step);
                let event = words::asked(exchange, moment.symbols);
                let who = crate::trace::story::consumer(exchange.ring);
                let says = format!(
                    "{who}'s answer of step {step} to {event} lacks VCPU_PAUSED: its slot is free, and vCPU {vcpu} waits on"
                );
                (says, vec![exchange.asked.0, step])
            });
        }
    }

    fn end(&mut self, _: &End<'_>) -> Vec<Finding> {
        self.0.take()
    }
}
