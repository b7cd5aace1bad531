//! `explain`: what is wrong with whom, by rules over a trace, each with the steps that show it.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | a trace through all rules |
//! | [`command`] | what `explain` prints |
//! | [`finding`] | what a rule finds, in words |
//! | [`rule`], `list` | what a rule is told; the list of rules |
//! | `words` | events as people call them |
//! | every other file | one rule, which says at its top what is wrong and what a consumer must do instead |
//!
//! A rule looks at the steps alone: what was asked, what was answered, who waited. It needs neither the engine nor the guest, so it works on
//! damaged traces up to the damage and on those of engines that are broken.

mod answer_for_nobody;
mod broken_ring;
mod changed_contents;
pub mod command;
mod endless_wait;
mod evict_fail_storm;
pub mod finding;
mod ignored_answer;
mod left_monitor;
mod list;
mod never_signalled;
mod not_paused;
mod refused_calls;
pub mod rule;
mod same_event;
mod slot_kept;
mod words;

use self::finding::Finding;
use self::list::RULES;
use self::rule::Moment;
use super::open;
use super::story::Story;
use crate::guest::symbols::Symbols;
use mem_event::trace::{End, Tape};
use std::path::Path;

/// What the rules found in a trace.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What is wrong, in the order of the rules.
    pub findings: Vec<Finding>,
    /// Steps that were read.
    pub steps: u64,
    /// Where the reading stopped before the end, if it did.
    pub ended: Option<End>,
}

/// What is wrong in a trace. `progress` hears of each step.
#[must_use]
pub fn explained(tape: &mut Tape, symbols: &Symbols, mut progress: impl FnMut(u64)) -> Explained {
    let config = tape.header().config.clone();
    let (mut story, mut rules) = (Story::default(), RULES.map(|make| make()));
    let (mut steps, mut last, mut ended) = (0, 0, None);
    for number in 1..=tape.len() {
        let remarks = tape.remarks(number - 1).unwrap_or_default();
        let step = match tape.step(number) {
            Ok(step) => step,
            Err(end) => {
                ended = Some(end);
                break;
            }
        };
        (steps, last) = (number, step.time);
        remarks.iter().for_each(|remarked| story.connections.heard(&remarked.remark));
        story.step(number, step);
        let (exchanges, waits) = (std::mem::take(&mut story.exchanges), std::mem::take(&mut story.waits));
        let moment = Moment {
            number,
            step,
            remarks: &remarks,
            exchanges: &exchanges,
            waits: &waits,
            story: &story,
            config: &config,
            symbols,
        };
        rules.iter_mut().for_each(|rule| rule.step(&moment));
        progress(number);
    }
    let remarks = tape.remarks(steps).unwrap_or_default();
    let end = rule::End { steps, time: last, remarks: &remarks, story: &story, symbols };
    let findings = rules.iter_mut().flat_map(|rule| rule.end(&end)).collect();
    Explained { findings, steps, ended }
}

/// The sentences about a trace in a file, for the text of a failure: none where no rule finds anything, or where it cannot be read. A run's
/// verdict says itself what came back changed.
#[must_use]
pub fn sentences(trace: &Path) -> Vec<String> {
    let Ok(mut tape) = open(trace) else { return Vec::new() };
    let symbols = Symbols::of_trace(tape.header());
    let findings = explained(&mut tape, &symbols, |_| {}).findings;
    let is_news = |finding: &&Finding| finding.rule != "changed-contents";
    findings.iter().filter(is_news).map(Finding::sentence).collect()
}
