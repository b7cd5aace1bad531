//! What `explain` prints.

use super::finding::Finding;
use super::list::RULES;
use super::{Explained, explained};
use crate::guest::symbols::Symbols;
use crate::output::{self, print};
use crate::trace::progress::Progress;
use crate::trace::row::Row;
use crate::trace::show::table;
use crate::trace::{exit_code, names, open};
use clap::Args;
use mem_event::trace::Tape;
use serde::Serialize;
use std::path::PathBuf;

/// `explain`
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// The trace; `-` for the standard input.
    pub trace: PathBuf,
    /// A line of JSON for each thing that is wrong, then a summary.
    #[arg(long)]
    pub json: bool,
    /// The symbols of the Linux that the guest ran: its vmlinux, bzImage, System.map or output of /proc/kallsyms.
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(flatten)]
    finding: &'a Finding,
}

#[derive(Serialize)]
struct Summary {
    event: &'static str,
    rules: usize,
    steps: u64,
    findings: usize,
}

/// `explain`; 0 where no rule finds anything, 5 where one does, 4 where the trace is damaged and nothing is found before the damage.
///
/// # Errors
/// No trace, an output that cannot be written.
pub fn explain(arguments: &Explain) -> anyhow::Result<u8> {
    let mut tape = open(&arguments.trace)?;
    let symbols = names::of(&mut tape, arguments.symbols.as_deref())?;
    let progress = Progress::new("steps", tape.len());
    let found = explained(&mut tape, &symbols, |number| progress.at(number));
    progress.end();
    print(&if arguments.json { json(&found)? } else { text(&found, &mut tape, &symbols) })?;
    let whole = exit_code(found.ended.as_ref().unwrap_or(tape.end()));
    Ok(if found.findings.is_empty() { whole } else { 5 })
}

fn json(found: &Explained) -> serde_json::Result<String> {
    let lines = found.findings.iter().map(|finding| output::json(&Line { event: "finding", finding }));
    let (steps, findings) = (found.steps, found.findings.len());
    let summary = output::json(&Summary { event: "summary", rules: RULES.len(), steps, findings });
    lines.chain([summary]).map(|line| Ok(line? + "\n")).collect()
}

/// The findings with the steps that show them.
fn text(found: &Explained, tape: &mut Tape, symbols: &Symbols) -> String {
    let Explained { findings, steps, .. } = found;
    if findings.is_empty() {
        return format!("nothing is wrong as far as {} rules over {steps} steps can tell\n", RULES.len());
    }
    let mut text = String::new();
    for finding in findings {
        text += &format!("{}\n\n", finding.sentence());
        let rows = finding.steps.iter().filter_map(|number| Some(Row::new(*number, tape.step(*number).ok()?, symbols)));
        let rows: Vec<Row> = rows.collect();
        text += &table(&rows).lines().map(|line| format!("  {line}\n")).collect::<String>();
        text.push('\n');
    }
    let things = if findings.len() == 1 { "one thing is" } else { "things are" };
    let number = if findings.len() == 1 { String::new() } else { format!("{} ", findings.len()) };
    text + &format!("{number}{things} wrong, by {} rules over {steps} steps\n", RULES.len())
}
