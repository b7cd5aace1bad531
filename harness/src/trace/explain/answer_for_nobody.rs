//! An answer that names no request that is out: another vCPU, another frame, or an event that was answered before. The engine frees a slot
//! for it and wakes nobody, so the request that was meant goes without its answer.

use super::finding::{Finding, Found};
use super::rule::{End, Moment, Rule};
use super::words;
use crate::trace::story::{Answer, Exchange, consumer};
use mem_event::{Flags, Request};

#[derive(Debug)]
struct AnswerForNobody(Found);

pub(super) fn rule() -> Box<dyn Rule> {
    let remedy = "answer each request once, with its own vCPU and gfn";
    Box::new(AnswerForNobody(Found::new("answer-for-nobody", remedy)))
}

impl Rule for AnswerForNobody {
    fn step(&mut self, moment: &Moment<'_>) {
        for exchange in moment.exchanges {
            let Some(answer) = exchange.answer else { continue };
            let only_a_slot = answer.response.flags.contains(Flags::DUMMY) || answer.response.other_version.is_some();
            if answer.fits || only_a_slot {
                continue;
            }
            self.0.consumer(exchange.ring, moment.story, || {
                (says(exchange, &answer, moment), vec![exchange.asked.0, answer.step])
            });
        }
    }

    fn end(&mut self, _: &End<'_>) -> Vec<Finding> {
        self.0.take()
    }
}

fn says(exchange: &Exchange, answer: &Answer, moment: &Moment<'_>) -> String {
    let (who, response) = (consumer(exchange.ring), &answer.response);
    let named = format!("vCPU {} and gfn {:#x}", response.vcpu, response.subject());
    let missing = match response.vcpu {
        vcpu if vcpu >= moment.config.vcpus => format!(", and there is no vCPU {vcpu}"),
        _ => String::new(),
    };
    let near = |request: &Request| request.event.subject() == response.subject() || request.vcpu.0 == response.vcpu;
    let out = moment.story.out().iter().filter(|open| open.ring == exchange.ring);
    let meant = std::iter::once(exchange).chain(out).find(|open| near(&open.request)).unwrap_or(exchange);
    let meant = words::asked(meant, moment.symbols);
    format!(
        "{who}'s answer of step {} names {named}, for which nothing waits{missing}; what is out is {meant}",
        answer.step
    )
}
