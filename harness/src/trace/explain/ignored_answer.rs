//! An answer of which something does not count: another version of `vm_event`, DUMMY, a reason that is not the request's.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use crate::trace::story::{Answer, Exchange, consumer};
use mem_event::event::About;
use mem_event::wire::vm_event::VERSION;
use mem_event::{Control, Flags, Input, Layout, Outcome};

#[derive(Debug)]
struct IgnoredAnswer {
    found: Found,
    layouts: [Layout; 3],
}

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "begin the answer as a copy of the request, with the layout's own version";
    Box::new(IgnoredAnswer { found: Found::new("ignored-answer", remedy), layouts: [Layout::default(); 3] })
}

impl Rule for IgnoredAnswer {
    fn step(&mut self, moment: &Moment<'_>) {
        for exchange in moment.exchanges {
            let Some(answer) = exchange.answer else { continue };
            let layout = self.layouts[exchange.ring.index()];
            let Some(why) = ignored(exchange, &answer, layout) else { continue };
            self.found.consumer(exchange.ring, moment.story, || {
                let (who, step) = (consumer(exchange.ring), answer.step);
                let event = words::asked(exchange, moment.symbols);
                (
                    format!("{who}'s answer of step {step} {why}; it took the slot of {event}"),
                    vec![exchange.asked.0, step],
                )
            });
        }
        if let (Input::Control(Control::Enable { ring, layout, .. }), Outcome::Proceed) =
            (&moment.step.input, &moment.step.outcome)
        {
            self.layouts[ring.index()] = *layout;
        }
    }

    fn end(&mut self, _: &End<'_>) -> Vec<Finding> {
        self.found.take()
    }
}

fn ignored(exchange: &Exchange, answer: &Answer, layout: Layout) -> Option<String> {
    let (request, response) = (&exchange.request, &answer.response);
    if let Some(version) = response.other_version {
        let none = "nothing of it counts but that its slot is free";
        return Some(format!("has version {version} where vm_event has {VERSION}: {none}"));
    }
    if response.flags.contains(Flags::DUMMY) && request.flags.contains(Flags::VCPU_PAUSED) {
        return Some("carries DUMMY: it gives a slot back and wakes nobody".to_owned());
    }
    // The older layouts' consumers leave the reason empty, as Xen's own do, and nothing reads it.
    let has_reasons = layout == Layout::VmEvent7;
    let asked = request.event.reason();
    match response.about {
        _ if !has_reasons || !answer.fits => None,
        // Of one that has its vCPU step only the vCPU counts, and the view that stands in the place of the rest.
        _ if response.flags.contains(Flags::FAST_SINGLESTEP) => None,
        About::Other(_) => {
            Some(format!("has a reason that the ring does not know where {} is due: it is ignored", asked.name()))
        }
        About::Event(event) if event.reason() != asked => {
            let given = event.reason();
            Some(format!("has the reason {} where {} is due: it is ignored", given.name(), asked.name()))
        }
        About::Event(_) => None,
    }
}
