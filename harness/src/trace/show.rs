//! `show`: a table of steps, lines of JSON, or figures.

use super::progress::Progress;
use super::row::{Row, duration};
use super::selection::{Filters, Selection};
use super::{about, exit_code, names, open, remark_row, stats};
use crate::guest::symbols::Symbols;
use crate::output::{self, is_read, print};
use clap::Args;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use mem_event::trace::{End, Tape};
use std::path::PathBuf;

/// `show`
#[derive(Clone, Debug, Args)]
pub struct Show {
    /// The trace.
    pub trace: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs, reason = "clap takes the text from the type")]
    pub filters: Filters,
    /// The largest number of steps to show.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Also what stands between the steps: connections, checkpoints, calls that the engine does not see, notes. Filters are for steps
    /// alone.
    #[arg(long)]
    pub remarks: bool,
    /// Lines of JSON in place of a table.
    #[arg(long)]
    pub json: bool,
    /// Figures: rates, waits, slot use, which vCPU waited for what.
    #[arg(long)]
    pub stats: bool,
    /// What the header says, and no steps.
    #[arg(long, conflicts_with = "stats")]
    pub header: bool,
}

/// Rows that are written at once: the first ones appear at once however long the trace is.
const PAGE: usize = 200;

/// `show`; 0, or 4 where the trace is damaged.
///
/// # Errors
/// No trace, filters that cannot be understood, an output that cannot be written.
pub fn show(arguments: &Show) -> anyhow::Result<u8> {
    let mut tape = open(&arguments.trace)?;
    let symbols = names::of(&mut tape, arguments.filters.symbols.as_deref())?;
    if arguments.header {
        let text = if arguments.json {
            stats::header_json(tape.header(), tape.end()) + "\n"
        } else {
            about(tape.header(), tape.end()) + &tape.header().scenario + "\n"
        };
        print(&text)?;
        return Ok(u8::from(!tape.end().is_whole()) * 4);
    }
    let selection = Selection::new(&arguments.filters, &mut tape, &symbols)?;
    if arguments.stats {
        return stats::stats(&mut tape, &selection, &symbols, arguments.json);
    }
    steps(&mut tape, &selection, arguments, &symbols)
}

/// The steps that are wanted; the first ones at once.
fn steps(tape: &mut Tape, selection: &Selection, arguments: &Show, symbols: &Symbols) -> anyhow::Result<u8> {
    let (mut page, mut shown) = (Vec::new(), 0);
    let mut ended = None;
    let progress = Progress::new("steps", tape.len());
    for number in selection.numbers() {
        if shown == 0 {
            progress.at(number);
        }
        if arguments.limit.is_some_and(|limit| shown >= limit) {
            break;
        }
        let rows = match rows(tape, number, arguments, selection, symbols) {
            Ok(rows) => rows,
            Err(end) => {
                ended = Some(end);
                break;
            }
        };
        shown += rows.len() as u64;
        page.extend(rows);
        if page.len() >= PAGE {
            progress.end();
            if !is_read(&lines(&page, arguments.json)?)? {
                return Ok(0);
            }
            page.clear();
        }
    }
    progress.end();
    if shown == 0 {
        nothing(tape, arguments.json)?;
    } else if !page.is_empty() {
        print(&lines(&page, arguments.json)?)?;
    }
    Ok(exit_code(ended.as_ref().unwrap_or(tape.end())))
}

/// The row of a step, where it is wanted, and those of the remarks around it: before the first step, and after each.
fn rows(
    tape: &mut Tape,
    number: u64,
    arguments: &Show,
    selection: &Selection,
    symbols: &Symbols,
) -> Result<Vec<Row>, End> {
    let step = selection.row(number, tape.step(number)?, symbols);
    if !arguments.remarks {
        return Ok(step.into_iter().collect());
    }
    let mut remarks = |after| {
        let remarks = tape.remarks(after)?;
        Ok(remarks.iter().map(|remark| remark_row::row(after, remark, symbols)).collect::<Vec<Row>>())
    };
    let mut rows = if number == 1 { remarks(0)? } else { Vec::new() };
    rows.extend(step);
    rows.extend(remarks(number)?);
    Ok(rows)
}

/// No step is shown, and why; in JSON that is no line.
fn nothing(tape: &Tape, json: bool) -> anyhow::Result<()> {
    match (json, tape.len()) {
        (true, _) => Ok(()),
        (false, 0) => print(&format!("the trace has no step: {}\n", tape.end())),
        (false, steps) => print(&format!("none of the {steps} steps is what the filters ask for\n")),
    }
}

fn lines(rows: &[Row], json: bool) -> anyhow::Result<String> {
    if !json {
        return Ok(table(rows));
    }
    let lines = rows.iter().map(|row| Ok(output::json(row)? + "\n"));
    lines.collect()
}

/// Rows as a table, as wide as the terminal, or as it needs to be where there is none: there a row is a line.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    table_of_width(rows, width())
}

fn table_of_width(rows: &[Row], width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table.set_header(["step", "time", "vcpu", "kind", "about", "answer", "effects"]);
    for row in rows {
        let vcpu = row.vcpu.map_or_else(String::new, |vcpu| vcpu.to_string());
        let cells = [
            if row.remark.is_some() { String::new() } else { row.step.to_string() },
            duration(row.time),
            vcpu,
            row.kind.clone(),
            what(row),
            row.outcome.clone(),
            row.effects.join("; "),
        ];
        table.add_row(cells);
    }
    for (column, least) in [(1, 9), (3, 8)] {
        if let Some(column) = table.column_mut(column) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn width() -> Option<u16> {
    rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok().map(|size| size.ws_col.max(60))
}

/// What a step is about: frame, symbol, rights, instruction.
#[must_use]
pub fn what(row: &Row) -> String {
    if let Some(remark) = &row.remark {
        let whose = if row.connection == 0 { String::new() } else { format!("connection {} ", row.connection) };
        return whose + remark;
    }
    let mut parts = Vec::new();
    parts.extend(row.ring.clone());
    if let Some(gfn) = row.gfn {
        let offset = row.offset.map(|offset| format!("+{offset:#x}")).unwrap_or_default();
        parts.push(format!("{gfn:#x}{offset}"));
    }
    parts.extend(row.place.clone());
    parts.extend(row.rights.clone());
    match (&row.code, row.rip) {
        (_, 0) => {}
        (code, rip) => {
            let at = row.at.as_deref().map(|at| format!(" {at}")).unwrap_or_default();
            let code = code.as_deref().map(|code| format!(": {code}")).unwrap_or_default();
            parts.push(format!("at {rip:#x}{at}{code}"));
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{Row, table_of_width};

    #[test]
    fn a_row_is_one_line_unless_a_terminal_is_narrower() {
        let effects = ["request access[0] vcpu 0 gfn 0x502 VCPU_PAUSED", "notify access"].map(str::to_owned).to_vec();
        let row = Row {
            step: 12,
            kind: "access".into(),
            effects,
            outcome: "wait: answer on access".into(),
            ..Row::default()
        };
        let rows = [row.clone(), row];
        assert_eq!(table_of_width(&rows, None).lines().count(), 3);
        let narrow = table_of_width(&rows, Some(60));
        assert!(narrow.lines().count() > 3 && narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
    }
}
