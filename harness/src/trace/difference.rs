//! The first difference of a replay: the step as it was recorded and as it came out, the state, and the steps before.

use super::row::{Row, effect, kind};
use super::show::table;
use crate::guest::symbols::Symbols;
use mem_event::trace::{Difference, Failure, Step};
use mem_event::{Effect, Outcome};
use similar::{ChangeTag, TextDiff};
use std::collections::VecDeque;

/// Steps that are shown before the one that differs.
const BEFORE: usize = 10;
/// Equal lines around changed ones.
const CONTEXT: usize = 3;

/// The last steps of a replay.
#[derive(Debug)]
pub struct Recent {
    steps: VecDeque<(u64, Step)>,
    most: usize,
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { steps: VecDeque::new(), most: BEFORE }
    }
}

impl Recent {
    /// The last steps with the one that differs as their last.
    pub(crate) fn with_the_one_that_differs() -> Recent {
        Recent { most: BEFORE + 1, ..Recent::default() }
    }

    /// Another step came out as recorded.
    pub fn step(&mut self, number: u64, step: &Step) {
        if self.steps.len() < self.most {
            self.steps.push_back((number, step.clone()));
        } else if let Some((oldest, mut copy)) = self.steps.pop_front() {
            debug_assert!(oldest < number, "steps come in order");
            // Into the memory of the one that goes: a replay does millions of these.
            (copy.time, copy.input) = (step.time, step.input.clone());
            copy.outcome.clone_from(&step.outcome);
            copy.code.clone_from(&step.code);
            copy.effects.list.clone_from(&step.effects.list);
            copy.effects.taken.clone_from(&step.effects.taken);
            self.steps.push_back((number, copy));
        }
    }

    /// The steps as a table.
    pub(crate) fn table(&self, symbols: &Symbols) -> String {
        let rows: Vec<Row> = self.steps.iter().map(|(number, step)| Row::new(*number, step, symbols)).collect();
        if rows.is_empty() { "no step\n".into() } else { table(&rows) }
    }
}

/// A failed replay in lines for people.
#[must_use]
pub fn report(failure: &Failure, recent: &Recent, symbols: &Symbols) -> String {
    let what = match failure {
        Failure::Impossible { step, why } => return format!("step {step} cannot come from a run: {why}\n"),
        Failure::Difference(difference) => of_step(difference, symbols),
        Failure::State { step, recorded, now } => {
            let lines = diff(&format!("{:#?}", recorded.state), &format!("{:#?}", now.state));
            let counters = diff(&format!("{recorded:#?}"), &format!("{now:#?}"));
            let lines = if lines.is_empty() { counters } else { lines };
            format!("after step {step} every answer was as recorded, and the engine's state is not:\n{lines}")
        }
    };
    format!("the steps before it:\n{}\n{what}- recorded, + now\n", recent.table(symbols))
}

fn of_step(difference: &Difference, symbols: &Symbols) -> String {
    let Difference { step, recorded, outcome, effects } = difference;
    let mut text = format!("step {step} differs: {}\n", kind(&recorded.input));
    text += &table(&[Row { outcome: "see below".into(), effects: Vec::new(), ..Row::new(*step, recorded, symbols) }]);
    let then = answer(&recorded.outcome, &recorded.effects.list);
    text += &diff(&then, &answer(outcome, &effects.list));
    if recorded.effects.taken != effects.taken {
        let (then, now) = (recorded.effects.taken.len(), effects.taken.len());
        text += &format!("taken from ring pages: {then} bytes recorded, {now} now\n");
    }
    text
}

/// What an engine answered, a line each.
#[must_use]
pub fn answer(outcome: &Outcome, effects: &[Effect]) -> String {
    let mut text = format!("outcome {outcome:?}\n");
    for it in effects {
        text += &format!("effect  {}\n", effect(it));
    }
    text
}

/// The changed lines of two texts, with some equal ones around.
#[must_use]
pub fn diff(then: &str, now: &str) -> String {
    let diff = TextDiff::from_lines(then, now);
    let mut text = String::new();
    for group in diff.grouped_ops(CONTEXT) {
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            text += &format!("{sign} {}\n", change.value().trim_end());
        }
    }
    text
}
