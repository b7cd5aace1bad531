//! One page that opens from disk, with the pictures of a sweep or of one run by several policies. It needs nothing from elsewhere.

use super::figures::{Figures, Times};
use super::picture::{Chart, Line};
use super::recording::Recorded;
use super::report;
use super::settings::Settings;
use super::sweep::Sweep;
use crate::output::page_head;
use crate::trace::row::duration;
use std::fmt::Write;

const STYLE: &str = concat!(include_str!("../trace/export/page/page.css"), include_str!("page.css"));

/// A figure to draw: its title, the figure, its words.
type Shown = (&'static str, fn(&Figures) -> f64, fn(f64) -> String);

const FIGURES: [Shown; 10] = [
    ("Answers a second", |it| it.per_second, number),
    ("vCPU stood still: half within", |it| it.stopped.p50 as f64, nanoseconds),
    ("99 % within", |it| it.stopped.p99 as f64, nanoseconds),
    ("The longest", |it| it.stopped.max as f64, nanoseconds),
    ("Fairness (Jain's index)", |it| it.fairness, number),
    ("Slots in use", |it| it.slots_used * 100.0, percent),
    ("Wakes an answer", |it| it.wakes, number),
    ("Wakes in vain an answer", |it| it.in_vain, number),
    ("vCPUs hung", |it| f64::from(it.hung), number),
    ("Lost or refused", |it| (it.lost + it.refused) as f64 * 100.0 / it.made.max(1) as f64, percent),
];

fn number(value: f64) -> String {
    match value {
        1e6.. => format!("{:.3}", value / 1e6).trim_end_matches('0').trim_end_matches('.').to_owned() + " M",
        1e4.. => format!("{:.1}", value / 1e3).trim_end_matches('0').trim_end_matches('.').to_owned() + " k",
        _ => format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

fn nanoseconds(value: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, which is not negative")]
    duration(value as u64)
}

fn percent(value: f64) -> String {
    number(value) + " %"
}

/// The page.
#[must_use]
pub fn page(settings: &Settings, record: Option<&Recorded>, sweep: Option<&Sweep>, runs: &[Figures]) -> String {
    let title = match sweep {
        Some(sweep) => format!("Flow control of a ring, by {}", sweep.name),
        None => "Flow control of a ring".into(),
    };
    let mut text = page_head(&title, STYLE);
    let _ = writeln!(text, "<h1>{title}</h1>\n<p class=\"soft\">{}</p>", report::about(settings, sweep));
    let mut policies: Vec<&str> = Vec::new();
    for run in runs {
        if !policies.contains(&run.policy.as_str()) {
            policies.push(&run.policy);
        }
    }
    let legend: String = policies.iter().map(|name| format!("<span class=\"{name}\"><i></i>{name}</span>")).collect();
    let _ = writeln!(text, "<p class=\"legend\">{legend}</p>");
    let charts = match sweep {
        Some(sweep) => swept(sweep, &policies, runs),
        None => percentiles(&policies, runs),
    };
    let _ = writeln!(text, "<div class=\"charts\">\n{charts}</div>");
    let _ = writeln!(text, "<h2>The figures</h2>\n<pre>{}</pre>", report::text(settings, record, sweep, runs));
    text + "</body></html>\n"
}

/// The runs of a policy, in their order.
fn of<'a>(policy: &'a str, runs: &'a [Figures]) -> impl Iterator<Item = &'a Figures> {
    runs.iter().filter(move |run| run.policy == policy)
}

fn swept(sweep: &Sweep, policies: &[&str], runs: &[Figures]) -> String {
    let places: Vec<(f64, String)> = sweep.values.iter().map(|value| (*value, sweep.shown(*value))).collect();
    let chart = |(title, figure, shown): &Shown| {
        let line = |policy: &&str| Line { name: (*policy).to_owned(), values: of(policy, runs).map(figure).collect() };
        Chart { title, places: &places, axis: sweep.name, lines: policies.iter().map(line).collect(), shown: *shown }
            .svg()
    };
    FIGURES.iter().map(chart).collect()
}

/// How long vCPUs stood still, by the part of the events that took no longer.
fn percentiles(policies: &[&str], runs: &[Figures]) -> String {
    let names = ["50 %", "90 %", "99 %", "99.9 %", "all"];
    let places: Vec<(f64, String)> = (1_u8..).zip(names).map(|(at, name)| (f64::from(at), name.to_owned())).collect();
    let titles: [report::Column<Times>; 3] = [
        ("vCPU stood still, at most", |it| it.stopped),
        ("For a slot, at most", |it| it.slot),
        ("For the answer, at most", |it| it.answer),
    ];
    let chart = |(title, times): &report::Column<Times>| {
        let values = |run: &Figures| {
            let Times { p50, p90, p99, p999, max, .. } = times(run);
            [p50, p90, p99, p999, max].map(|time| time as f64).to_vec()
        };
        let line =
            |policy: &&str| Line { name: (*policy).to_owned(), values: of(policy, runs).flat_map(values).collect() };
        Chart {
            title,
            places: &places,
            axis: "of the events",
            lines: policies.iter().map(line).collect(),
            shown: nanoseconds,
        }
        .svg()
    };
    titles.iter().map(chart).collect()
}
