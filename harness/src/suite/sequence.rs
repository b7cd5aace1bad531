//! The sequence of a run that is compared with the accepted one.

use crate::guest::symbols::Symbols;
use crate::run::Outcome;
use crate::scenario::{Order, Scenario, Shown};
use crate::toolstack::transcript::{self, Record};
use mem_event::Ring;

/// The part of a run's sequence that its scenario wants kept.
#[must_use]
pub fn of(scenario: &Scenario, outcome: &Outcome, symbols: &Symbols) -> String {
    let show = &scenario.snapshot.show;
    let shown = |record: &&Record| match record {
        Record::Checkpoint { .. } => show.contains(&Shown::Checkpoints),
        Record::Event { ring: Ring::Access, .. } => show.contains(&Shown::Access),
        Record::Event { ring: Ring::Paging, .. } => show.contains(&Shown::Paging),
        Record::Event { ring: Ring::Sharing, .. } => show.contains(&Shown::Sharing),
        Record::Act { .. } => show.contains(&Shown::Acts),
    };
    let records: Vec<Record> = outcome.records.iter().filter(shown).cloned().collect();
    let vcpus = if scenario.snapshot.order == Some(Order::Arrival) { 1 } else { scenario.machine.vcpus };
    let mut text = transcript::text(&records, vcpus, symbols);
    if show.contains(&Shown::Verdict) {
        text += &format!("verdict: {}\n", outcome.verdict);
    }
    text
}
