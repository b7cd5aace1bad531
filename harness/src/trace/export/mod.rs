//! `export`: a trace for other programs, and as a page to read.

mod frames;
mod page;
mod perfetto;
mod timeline;

use self::timeline::Timeline;
use super::explain::explained;
use super::progress::Progress;
use super::row::Row;
use super::selection::{Filters, Selection};
use super::stats::header_json;
use super::{exit_code, names, open, remark_row};
use crate::guest::symbols::Symbols;
use crate::output::{VERSION, quoted};
use crate::refusal::Refusal;
use anyhow::Context;
use clap::{Args, ValueEnum};
use mem_event::trace::{End, Step, Tape};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// What it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Chrome's JSON trace events, which ui.perfetto.dev opens: tracks of vCPUs and slots, waits, flows, counters.
    Perfetto,
    /// One object: the header, and the steps.
    Json,
    /// A line a step.
    Csv,
    /// One page that opens from disk: which vCPU waited, for what, how long.
    Html,
}

/// `export`
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// The trace.
    pub trace: PathBuf,
    /// What it becomes.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub to: Format,
    /// Where it goes; to the standard output without.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub filters: Filters,
}

/// `export`; 0, or 4 where the trace is damaged: what is readable is exported then.
///
/// # Errors
/// No trace, filters that cannot be understood, an output that cannot be written.
pub fn export(arguments: &Export) -> anyhow::Result<u8> {
    let mut tape = open(&arguments.trace)?;
    let symbols = names::of(&mut tape, arguments.filters.symbols.as_deref())?;
    let selection = Selection::new(&arguments.filters, &mut tape, &symbols)?;
    let mut output: Box<dyn Write> = match &arguments.output {
        None => Box::new(BufWriter::new(std::io::stdout().lock())),
        Some(path) => Box::new(BufWriter::new(File::create(path).map_err(|error| {
            Refusal::usage(format!("cannot write {}: {error}", path.display()), "name a file that can be written")
        })?)),
    };
    let written = write(arguments.to, &mut tape, &selection, symbols, &mut output);
    let ended = match written.and_then(|ended| output.flush().context("cannot write the output").map(|()| ended)) {
        Err(error) if is_gone(&error) => return Ok(0),
        other => other?,
    };
    Ok(exit_code(ended.as_ref().unwrap_or(tape.end())))
}

/// The reader of the output went away.
fn is_gone(error: &anyhow::Error) -> bool {
    let gone = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(gone))
}

fn write(
    format: Format,
    tape: &mut Tape,
    selection: &Selection,
    symbols: Symbols,
    output: &mut dyn Write,
) -> anyhow::Result<Option<End>> {
    match format {
        Format::Csv => csv(tape, selection, &symbols, output),
        Format::Json => json(tape, selection, &symbols, output),
        Format::Perfetto | Format::Html => {
            let found = (format == Format::Html).then(|| explained(tape, &symbols, |_| {}).findings);
            let (timeline, ended) = Timeline::of(tape, selection, symbols);
            let text = match found {
                Some(findings) => page::page(&timeline, &findings, tape),
                None => perfetto::events(&timeline),
            };
            output.write_all(text.as_bytes()).context("cannot write the output")?;
            Ok(ended)
        }
    }
}

/// Calls with each step that may be selected; where reading stopped, if it did.
fn each(
    tape: &mut Tape,
    selection: &Selection,
    mut with: impl FnMut(u64, &Step) -> anyhow::Result<()>,
) -> anyhow::Result<Option<End>> {
    let progress = Progress::new("steps", tape.len());
    let mut ended = None;
    for number in selection.numbers() {
        progress.at(number);
        match tape.step(number) {
            Ok(step) => with(number, step)?,
            Err(end) => {
                ended = Some(end);
                break;
            }
        }
    }
    progress.end();
    Ok(ended)
}

/// Calls with the row of each step that is selected.
fn each_row(
    tape: &mut Tape,
    selection: &Selection,
    symbols: &Symbols,
    mut with: impl FnMut(Row) -> anyhow::Result<()>,
) -> anyhow::Result<Option<End>> {
    each(tape, selection, |number, step| selection.row(number, step, symbols).map_or(Ok(()), &mut with))
}

fn json(
    tape: &mut Tape,
    selection: &Selection,
    symbols: &Symbols,
    output: &mut dyn Write,
) -> anyhow::Result<Option<End>> {
    write!(output, "{{\"version\":{VERSION},\"header\":{},\n\"steps\":[", header_json(tape.header(), tape.end()))?;
    let mut separator = "\n";
    let ended = each_row(tape, selection, symbols, |row| {
        write!(output, "{separator}{}", serde_json::to_string(&row)?)?;
        separator = ",\n";
        Ok(())
    })?;
    write!(output, "\n],\n\"remarks\":[")?;
    let ended = ended.or(remarks(tape, selection, symbols, output)?);
    writeln!(output, "\n]}}")?;
    Ok(ended)
}

/// What stands between the steps that may be selected, each with the number of the step before it.
fn remarks(
    tape: &mut Tape,
    selection: &Selection,
    symbols: &Symbols,
    output: &mut dyn Write,
) -> anyhow::Result<Option<End>> {
    let numbers = selection.numbers();
    let mut separator = "\n";
    for after in numbers.start() - 1..=*numbers.end() {
        let remarks = match tape.remarks(after) {
            Ok(remarks) => remarks,
            Err(end) => return Ok(Some(end)),
        };
        for remark in &remarks {
            write!(output, "{separator}{}", serde_json::to_string(&remark_row::row(after, remark, symbols))?)?;
            separator = ",\n";
        }
    }
    Ok(None)
}

fn csv(
    tape: &mut Tape,
    selection: &Selection,
    symbols: &Symbols,
    output: &mut dyn Write,
) -> anyhow::Result<Option<End>> {
    writeln!(output, "version,step,time_ns,kind,vcpu,ring,gfn,offset,place,rights,rip,at,code,outcome,effects")?;
    each_row(tape, selection, symbols, |row| {
        let hex = |number: u64| format!("{number:#x}");
        let cells = [
            VERSION.to_string(),
            row.step.to_string(),
            row.time.to_string(),
            row.kind,
            row.vcpu.map(|vcpu| vcpu.to_string()).unwrap_or_default(),
            row.ring.unwrap_or_default(),
            row.gfn.map(hex).unwrap_or_default(),
            row.offset.map(|offset| hex(offset.into())).unwrap_or_default(),
            row.place.unwrap_or_default(),
            row.rights.unwrap_or_default(),
            if row.rip == 0 { String::new() } else { hex(row.rip) },
            row.at.unwrap_or_default(),
            row.code.unwrap_or_default(),
            row.outcome,
            row.effects.join("; "),
        ];
        let line: Vec<String> = cells.into_iter().map(quoted).collect();
        Ok(writeln!(output, "{}", line.join(","))?)
    })
}
