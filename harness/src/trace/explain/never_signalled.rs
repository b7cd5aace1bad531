//! Answers that stood on the ring page and were taken only when something else happened to the ring: its end, the end of its consumer, a
//! look at it that was asked for. The event channel was not signalled.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use crate::trace::story::consumer;
use mem_event::{Control, Input};

#[derive(Debug)]
struct NeverSignalled(Found);

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "signal the event channel after the answers, where the ring page asks for it";
    Box::new(NeverSignalled(Found::new("never-signalled", remedy)))
}

impl Rule for NeverSignalled {
    fn step(&mut self, moment: &Moment<'_>) {
        let by = match &moment.step.input {
            Input::ConsumerLost { .. } => "its consumer was gone",
            Input::Control(Control::Disable { .. }) => "the ring was disabled",
            Input::Control(Control::Resume { .. }) => "somebody asked for it",
            _ => return,
        };
        for exchange in moment.exchanges {
            self.0.consumer(exchange.ring, moment.story, || {
                let event = words::asked(exchange, moment.symbols);
                let (who, step) = (consumer(exchange.ring), moment.number);
                let says = format!("{who}'s answer to {event} was on the ring page and not signalled: it was taken in step {step}, because {by}");
                (says, vec![exchange.asked.0, step])
            });
        }
    }

    fn end(&mut self, _: &End<'_>) -> Vec<Finding> {
        self.0.take()
    }
}
