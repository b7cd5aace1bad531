//! What a person or a program sees of a run: events as they come, the summary at the end.

use super::outcome::Outcome;
use super::standing::Standing;
use crate::consumers::figures::Figures;
use crate::guest::symbols::Symbols;
use crate::output;
use crate::scenario::amount::mebibytes;
use crate::toolstack::counts::Counts;
use crate::toolstack::log::{Observer, Served};
use crate::toolstack::transcript::Record;
use mem_event::{Event, Ring};
use serde_json::json;
use std::io::{IsTerminal, Write};

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Events as they come, on a terminal.
    Terminal,
    /// The summary only: stable, for pipes and files.
    Quiet,
    /// Events and summary as lines of JSON.
    Json,
}

impl Style {
    /// JSON if asked for; else by whether the output is a terminal.
    #[must_use]
    pub fn choose(json: bool) -> Style {
        match (json, std::io::stdout().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal,
            (false, false) => Style::Quiet,
        }
    }
}

/// Paging events are shown one by one up to this number, then only counted: under a target there are very many.
const SHOWN: u64 = 200;
/// Between two updates of the count.
const STRIDE: u64 = 1000;

/// Shows events as they come.
#[derive(Debug)]
pub struct Live {
    style: Style,
    /// Whether CPU events are told in any style: each was asked for by name.
    tells_cpu_events: bool,
    paging: u64,
    standing: Option<Standing>,
}

impl Live {
    /// In this style.
    #[must_use]
    pub fn new(style: Style) -> Live {
        Live { style, tells_cpu_events: false, paging: 0, standing: None }
    }

    /// Which tells CPU events also where events are not told, if these were asked for.
    #[must_use]
    pub fn with_cpu_events(self, tells_cpu_events: bool) -> Live {
        Live { tells_cpu_events, ..self }
    }

    /// Whether somebody asked for this one by name.
    fn was_asked_for(&self, record: &Record) -> bool {
        let is_cpu_event = matches!(record, Record::Event { request, .. } if matches!(request.event, Event::Cpu(_)));
        record.is_a_break() || self.tells_cpu_events && is_cpu_event
    }

    fn say(&self, line: &str) {
        // A reader that went away does not end the run.
        let write = || drop(writeln!(std::io::stdout(), "{line}"));
        match &self.standing {
            Some(standing) => standing.beside(write),
            None => write(),
        }
    }

    fn line(&mut self, record: &Record, symbols: &Symbols) -> Option<String> {
        if self.style == Style::Json {
            return Some(record.json(symbols));
        }
        if let Record::Event { ring: Ring::Paging | Ring::Sharing, .. } = record {
            self.paging += 1;
            if self.paging > SHOWN {
                let count = self.paging;
                return count.is_multiple_of(STRIDE).then(|| format!("… {count} paging events"));
            }
        }
        Some(record.line(symbols))
    }
}

impl Observer for Live {
    fn record(&mut self, record: &Record, symbols: &Symbols) {
        if self.style == Style::Quiet && !self.was_asked_for(record) || record.is_beside() {
            return;
        }
        if let Some(line) = self.line(record, symbols) {
            self.say(&line);
        }
    }

    fn attached(&mut self, vcpus: u32) {
        match self.style {
            Style::Quiet => {}
            Style::Terminal => self.say(&format!("attached to a domain with {vcpus} vCPUs; Ctrl-C leaves it")),
            Style::Json => self.say(&output::json(&json!({ "event": "attached", "vcpus": vcpus })).unwrap_or_default()),
        }
    }

    fn served(&mut self, machine: &Served) {
        if self.style == Style::Terminal && std::io::stderr().is_terminal() && !output::in_ci() {
            self.standing = Some(Standing::of(machine));
        }
    }

    fn looked(&mut self, counts: &Counts) {
        if let Some(standing) = &mut self.standing {
            standing.looked(counts);
        }
    }
}

/// The summary as lines for people.
#[must_use]
pub fn summary(name: &str, outcome: &Outcome, target: Option<u64>) -> String {
    let counts = &outcome.counts;
    let mut lines = vec![format!("{name}: {}", outcome.verdict)];
    lines.push(format!(
        "  events       {} access, {} paging, {} sharing; {} checkpoints",
        counts.access, counts.paging, counts.sharing, counts.checkpoints
    ));
    if outcome.paged != Figures::default() {
        let Figures { pages_in, pages_out, prefetched } = outcome.paged;
        let ahead = if prefetched > 0 { format!(" ({prefetched} prefetched)") } else { String::new() };
        lines.push(format!("  pages        {pages_in} in{ahead}, {pages_out} out"));
    }
    if let (Some((largest, samples)), Some(target)) = (outcome.resident, target) {
        lines.push(format!(
            "  resident     {} at most in {samples} samples after the first trim, target {}",
            mebibytes(largest),
            mebibytes(target)
        ));
    }
    if counts.access + counts.paging + counts.sharing > 0 {
        lines.push(format!("  longest wait {} µs from a request to its answer", counts.longest_wait_us));
    }
    for sleeper in &outcome.sleepers {
        lines.push(format!("  asleep       {sleeper}"));
    }
    for note in &outcome.notes {
        lines.push(format!("  note         {note}"));
    }
    lines.push(format!("  took         {:.2} s", outcome.took.as_secs_f64()));
    lines.join("\n") + "\n"
}

/// The summary as one line of JSON.
#[must_use]
pub fn summary_json(name: &str, outcome: &Outcome, target: Option<u64>) -> String {
    let summary = json!({
        "event": "summary",
        "name": name,
        "verdict": outcome.verdict.kind,
        "reason": outcome.verdict.reason,
        "events": outcome.counts,
        "pages_in": outcome.paged.pages_in,
        "pages_out": outcome.paged.pages_out,
        "pages_prefetched": outcome.paged.prefetched,
        "largest_resident": outcome.resident.map(|(bytes, _)| bytes),
        "target": target,
        "asleep": outcome.sleepers,
        "notes": outcome.notes,
        "seconds": outcome.took.as_secs_f64(),
    });
    output::json(&summary).unwrap_or_default()
}
