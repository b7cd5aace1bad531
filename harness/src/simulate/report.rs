//! Figures as tables, as JSON and as CSV.

use super::figures::{Figures, Times};
use super::recording::Recorded;
use super::settings::Settings;
use super::sweep::Sweep;
use crate::output::{self, VERSION};
use crate::trace::row::duration;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// A name, and what it is of a run.
pub type Column<T> = (&'static str, fn(&Figures) -> T);

fn time(nanoseconds: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time of a run, which is not negative"
    )]
    let whole = nanoseconds.round() as u64;
    duration(whole)
}

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// A rate with three digits that count.
fn rate(a_second: f64) -> String {
    match a_second {
        1e6.. => format!("{:.2} M", a_second / 1e6),
        1e3.. => format!("{:.1} k", a_second / 1e3),
        _ => format!("{a_second:.1}"),
    }
}

/// The rows of the table of one run by several policies.
const ROWS: [Column<String>; 20] = [
    ("answers a second", |it| rate(it.per_second)),
    ("vCPU stood still: half within", |it| duration(it.stopped.p50)),
    ("90 %", |it| duration(it.stopped.p90)),
    ("99 %", |it| duration(it.stopped.p99)),
    ("99.9 %", |it| duration(it.stopped.p999)),
    ("the longest", |it| duration(it.stopped.max)),
    ("for a slot: mean", |it| time(it.slot.mean)),
    ("99 %", |it| duration(it.slot.p99)),
    ("for the answer: mean", |it| time(it.answer.mean)),
    ("99 %", |it| duration(it.answer.p99)),
    ("fairness (Jain)", |it| format!("{:.4}", it.fairness)),
    ("slots in use", |it| percent(it.slots_used)),
    ("ring full", |it| percent(it.full)),
    ("woken an answer", |it| format!("{:.2}", it.wakes)),
    ("woken in vain", |it| format!("{:.2}", it.in_vain)),
    ("events made", |it| it.made.to_string()),
    ("answered", |it| it.answered.to_string()),
    ("lost", |it| it.lost.to_string()),
    ("refused", |it| it.refused.to_string()),
    ("waiting for ever", |it| format!("{} ({} vCPUs hung)", it.waiting, it.hung)),
];

/// The columns of the table of a sweep.
const SWEPT: [Column<String>; 11] = [
    ("policy", |it| it.policy.clone()),
    ("a second", |it| rate(it.per_second)),
    ("half within", |it| duration(it.stopped.p50)),
    ("99 %", |it| duration(it.stopped.p99)),
    ("longest", |it| duration(it.stopped.max)),
    ("fairness", |it| format!("{:.3}", it.fairness)),
    ("slots", |it| percent(it.slots_used)),
    ("in vain", |it| format!("{:.2}", it.in_vain)),
    ("lost", |it| it.lost.to_string()),
    ("refused", |it| it.refused.to_string()),
    ("hung", |it| it.hung.to_string()),
];

fn table(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Policies side by side.
fn side_by_side(runs: &[Figures]) -> String {
    let header = std::iter::once(String::new()).chain(runs.iter().map(|run| run.policy.clone())).collect();
    let row = |(name, of): &Column<String>| std::iter::once((*name).to_owned()).chain(runs.iter().map(of)).collect();
    table(header, ROWS.iter().map(row).collect()) + &broken(runs)
}

/// A line for each value and policy.
fn swept(sweep: &Sweep, runs: &[Figures]) -> String {
    let each = runs.len() / sweep.values.len().max(1);
    let values = sweep.values.iter().flat_map(|value| std::iter::repeat_n(sweep.shown(*value), each));
    let header = std::iter::once(sweep.name).chain(SWEPT.map(|(name, _)| name)).map(str::to_owned).collect();
    let row =
        |(value, run): (String, &Figures)| std::iter::once(value).chain(SWEPT.iter().map(|(_, of)| of(run))).collect();
    table(header, values.zip(runs).map(row).collect())
}

/// What went against the protocol's rules, a line a policy and rule.
fn broken(runs: &[Figures]) -> String {
    let mut text = String::new();
    for run in runs {
        for (rule, count) in &run.broken {
            text += &format!("under {}: {rule}, {count} times\n", run.policy);
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// What was simulated, in a sentence.
#[must_use]
pub fn about(settings: &Settings, sweep: Option<&Sweep>) -> String {
    match sweep {
        Some(sweep) => format!("{} varied; else {settings}", sweep.name),
        None => settings.to_string(),
    }
}

/// All of it for a reader.
#[must_use]
pub fn text(settings: &Settings, record: Option<&Recorded>, sweep: Option<&Sweep>, runs: &[Figures]) -> String {
    let table = sweep.map_or_else(|| side_by_side(runs), |sweep| swept(sweep, runs));
    format!("{}\n{}{table}", about(settings, sweep), record.map(recorded).unwrap_or_default())
}

/// A recorded run, to compare with.
fn recorded(run: &Recorded) -> String {
    format!(
        "recorded: {} vCPUs, {} events on the {} ring of {} slots: {} a second; stood still {} half within, {} 90 %, {} 99 %, {} the longest; \
         for a slot {} on the average, for the answer {}\n\n",
        run.vcpus,
        run.events,
        run.ring,
        run.slots,
        rate(run.per_second),
        duration(run.stopped.p50),
        duration(run.stopped.p90),
        duration(run.stopped.p99),
        duration(run.stopped.max),
        time(run.slot.mean),
        time(run.answer.mean)
    )
}

#[derive(Serialize)]
struct Line<'a, T> {
    event: &'static str,
    #[serde(flatten)]
    of: &'a T,
}

/// A line of JSON a run; the recorded one first.
///
/// # Errors
/// None that a run's figures make.
pub fn json(record: Option<&Recorded>, runs: &[Figures]) -> serde_json::Result<String> {
    let first = record.map(|of| output::json(&Line { event: "recorded", of }));
    let lines = runs.iter().map(|of| output::json(&Line { event: "simulated", of }));
    first.into_iter().chain(lines).map(|line| Ok(line? + "\n")).collect()
}

/// The columns of CSV beside the times.
const CSV: [Column<String>; 35] = [
    ("policy", |it| it.policy.clone()),
    ("seed", |it| it.seed.to_string()),
    ("vcpus", |it| it.vcpus.to_string()),
    ("rings", |it| it.rings.to_string()),
    ("slots", |it| it.slots.to_string()),
    ("consumers", |it| it.consumers.to_string()),
    ("dispatch", |it| format!("{:?}", it.dispatch).to_lowercase()),
    ("batch", |it| it.batch.to_string()),
    ("loss", |it| it.loss.to_string()),
    ("foreign", |it| it.foreign.to_string()),
    ("think_ns", |it| it.think_ns.to_string()),
    ("service_ns", |it| it.service_ns.to_string()),
    ("wake_ns", |it| it.wake_ns.to_string()),
    ("prepare_ns", |it| it.prepare_ns.to_string()),
    ("signal_ns", |it| it.signal_ns.to_string()),
    ("notices", |it| it.notices.to_string()),
    ("drops", |it| it.drops.to_string()),
    ("tries", |it| it.tries.to_string()),
    ("foreign_think_ns", |it| it.foreign_think_ns.to_string()),
    ("time_ns", |it| it.time_ns.to_string()),
    ("made", |it| it.made.to_string()),
    ("answered", |it| it.answered.to_string()),
    ("lost", |it| it.lost.to_string()),
    ("refused", |it| it.refused.to_string()),
    ("waiting", |it| it.waiting.to_string()),
    ("hung", |it| it.hung.to_string()),
    ("per_second", |it| it.per_second.to_string()),
    ("fairness", |it| it.fairness.to_string()),
    ("slots_used", |it| it.slots_used.to_string()),
    ("full", |it| it.full.to_string()),
    ("wakes", |it| it.wakes.to_string()),
    ("in_vain", |it| it.in_vain.to_string()),
    ("refusals", |it| it.refusals.to_string()),
    ("broken", |it| it.broken.values().sum::<u64>().to_string()),
    ("stopped_count", |it| it.stopped.count.to_string()),
];

const TIMES: [Column<Times>; 3] = [("stopped", |it| it.stopped), ("slot", |it| it.slot), ("answer", |it| it.answer)];

/// A line a run. With a sweep its name and value stand first.
#[must_use]
pub fn csv(sweep: Option<&Sweep>, runs: &[Figures]) -> String {
    let each = sweep.map_or(1, |sweep| runs.len() / sweep.values.len().max(1));
    let mut header: Vec<String> = ["version", "swept", "value"].map(str::to_owned).to_vec();
    header.extend(CSV.map(|(name, _)| name.to_owned()));
    for (name, _) in TIMES {
        header.extend(["mean", "p50", "p90", "p99", "p999", "max"].map(|part| format!("{name}_{part}_ns")));
    }
    let mut text = header.join(",") + "\n";
    for (at, run) in runs.iter().enumerate() {
        let value = sweep.map(|sweep| sweep.values[at / each].to_string());
        let mut cells = vec![
            VERSION.to_string(),
            sweep.map(|sweep| sweep.name.to_owned()).unwrap_or_default(),
            value.unwrap_or_default(),
        ];
        cells.extend(CSV.map(|(_, of)| of(run)));
        for (_, of) in TIMES {
            let Times { mean, p50, p90, p99, p999, max, .. } = of(run);
            cells.push(mean.to_string());
            cells.extend([p50, p90, p99, p999, max].map(|time| time.to_string()));
        }
        text += &(cells.join(",") + "\n");
    }
    text
}
