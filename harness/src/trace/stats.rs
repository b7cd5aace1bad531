//! `show --stats`: how many, how fast, who waited for whom and how long, how full the rings were.

use super::exit_code;
use super::progress::Progress;
use super::row::{self, duration};
use super::selection::Selection;
use super::story::{Level, Story, Wait};
use crate::guest::symbols::Symbols;
use crate::output::{self, print};
use comfy_table::{Table, presets};
use mem_event::Ring;
use mem_event::trace::{End, Header, Tape};
use serde::Serialize;
use std::collections::BTreeMap;

/// The figures of a trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Steps counted.
    pub steps: u64,
    /// Nanoseconds from the first to the last.
    pub time: u64,
    /// Steps of each kind.
    pub kinds: BTreeMap<String, u64>,
    /// Who waited for whom.
    pub waits: Vec<Waits>,
    /// The rings.
    pub rings: Vec<RingUse>,
    /// The largest number of vCPUs that waited at a time.
    pub most_sleepers: u32,
}

/// One vCPU's waits for one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waits {
    /// Who.
    pub vcpu: u32,
    /// For whom.
    pub whom: String,
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub total: u64,
    /// The longest, and the step that began it.
    pub longest: (u64, u64),
    /// How many of them had not ended.
    pub open: u64,
    /// vCPUs whose requests held the slots that were waited for, and how often.
    pub holders: BTreeMap<u32, u64>,
}

/// How a ring was used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RingUse {
    /// Its name.
    pub ring: String,
    /// Requests made.
    pub requests: u64,
    /// Of them without an answer at the end.
    pub unanswered: u64,
    /// From request to answer taken: the mean and the longest; nanoseconds.
    pub mean: u64,
    /// See `mean`.
    pub longest: u64,
    /// Slots, and how many were in use at most.
    pub slots: u32,
    /// See `slots`.
    pub most: u32,
    /// The share of the time in which none was free.
    pub full: f64,
}

#[derive(Default)]
struct Tally {
    stats: Stats,
    waits: BTreeMap<(u32, String), Waits>,
    rings: [RingUse; 3],
    answers: [(u64, u64); 3],
    full: [u64; 3],
    before: Level,
}

/// The figures of what is selected; exit code 0, or 4 where the trace is damaged.
///
/// # Errors
/// The output cannot be written.
pub fn stats(tape: &mut Tape, selection: &Selection, symbols: &Symbols, json: bool) -> anyhow::Result<u8> {
    let (stats, end) = of(tape, selection, symbols);
    print(&if json { output::json(&stats)? + "\n" } else { text(&stats) })?;
    Ok(exit_code(end.as_ref().unwrap_or(tape.end())))
}

/// The figures, and where reading stopped if it did.
#[must_use]
pub fn of(tape: &mut Tape, selection: &Selection, symbols: &Symbols) -> (Stats, Option<End>) {
    let (mut tally, mut story, mut ended) = (Tally::default(), Story::default(), None);
    let (mut first, mut last) = (None, 0);
    let progress = Progress::new("steps", tape.len());
    for number in selection.numbers() {
        progress.at(number);
        let step = match tape.step(number) {
            Ok(step) => step,
            Err(end) => {
                ended = Some(end);
                break;
            }
        };
        if !selection.wants(number, step, symbols) {
            continue;
        }
        last = step.time;
        first.get_or_insert(last);
        tally.stats.steps += 1;
        *tally.stats.kinds.entry(row::kind(&step.input)).or_default() += 1;
        story.step(number, step);
        tally.level(story.level);
        tally.take(&mut story, last);
    }
    progress.end();
    story.finish();
    tally.take(&mut story, last);
    (tally.end(last.saturating_sub(first.unwrap_or(0))), ended)
}

impl Tally {
    fn level(&mut self, level: Level) {
        let since = level.time.saturating_sub(self.before.time);
        for at in 0..3 {
            if self.before.slots[at] > 0 && self.before.out[at] >= self.before.slots[at] {
                self.full[at] += since;
            }
            self.rings[at].slots = self.rings[at].slots.max(level.slots[at]);
            self.rings[at].most = self.rings[at].most.max(level.out[at]);
        }
        self.stats.most_sleepers = self.stats.most_sleepers.max(level.sleepers);
        self.before = level;
    }

    fn take(&mut self, story: &mut Story, last: u64) {
        for wait in story.waits.drain(..) {
            self.wait(&wait, last);
        }
        for exchange in story.exchanges.drain(..) {
            let at = exchange.ring.index();
            self.rings[at].requests += 1;
            match exchange.answer {
                None => self.rings[at].unanswered += 1,
                Some(answer) => {
                    let took = answer.time.saturating_sub(exchange.asked.1);
                    self.rings[at].longest = self.rings[at].longest.max(took);
                    self.answers[at] = (self.answers[at].0 + 1, self.answers[at].1 + took);
                }
            }
        }
    }

    fn wait(&mut self, wait: &Wait, last: u64) {
        let length = wait.length(last);
        let entry = self.waits.entry((wait.vcpu, wait.whom())).or_default();
        entry.count += 1;
        entry.total += length;
        entry.open += u64::from(wait.end.is_none());
        if length >= entry.longest.0 {
            entry.longest = (length, wait.step);
        }
        for holder in &wait.holders {
            *entry.holders.entry(*holder).or_default() += 1;
        }
    }

    fn end(self, time: u64) -> Stats {
        let Tally { mut stats, waits, rings, answers, full, .. } = self;
        stats.time = time;
        stats.waits = waits.into_iter().map(|((vcpu, whom), waits)| Waits { vcpu, whom, ..waits }).collect();
        stats.waits.sort_by_key(|waits| std::cmp::Reverse(waits.total));
        for (at, ring) in rings.into_iter().enumerate().filter(|(_, ring)| ring.slots > 0 || ring.requests > 0) {
            let mean = answers[at].1.checked_div(answers[at].0).unwrap_or(0);
            let full = if time == 0 { 0.0 } else { full[at] as f64 / time as f64 };
            stats.rings.push(RingUse { ring: Ring::ALL[at].to_string(), mean, full, ..ring });
        }
        stats
    }
}

fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The figures as tables.
#[must_use]
pub fn text(stats: &Stats) -> String {
    if stats.steps == 0 {
        return "no step is what the filters ask for\n".to_owned();
    }
    let seconds = stats.time as f64 / 1e9;
    let rate = |count: u64| if seconds > 0.0 { format!("{:.0}/s", count as f64 / seconds) } else { "-".into() };
    let mut text = format!(
        "{} steps in {}, {}; at most {} vCPUs waited at a time\n\n",
        stats.steps,
        duration(stats.time),
        rate(stats.steps),
        stats.most_sleepers
    );
    let kinds = stats.kinds.iter().map(|(kind, count)| vec![kind.clone(), count.to_string(), rate(*count)]);
    text += &table(&["kind", "steps", "rate"], kinds.collect());
    let rings = stats.rings.iter().map(|ring| {
        vec![
            ring.ring.clone(),
            ring.requests.to_string(),
            ring.unanswered.to_string(),
            duration(ring.mean),
            duration(ring.longest),
            format!("{} of {}", ring.most, ring.slots),
            format!("{:.1} %", ring.full * 100.0),
        ]
    });
    text += "\n";
    text += &table(&["ring", "requests", "unanswered", "mean", "longest", "slots used", "full"], rings.collect());
    let waits = stats.waits.iter().map(|waits| {
        let holders: Vec<String> = waits.holders.iter().map(|(vcpu, count)| format!("{vcpu} ({count})")).collect();
        vec![
            format!("vcpu {}", waits.vcpu),
            waits.whom.clone(),
            waits.count.to_string(),
            duration(waits.total),
            format!("{} at step {}", duration(waits.longest.0), waits.longest.1),
            waits.open.to_string(),
            holders.join(", "),
        ]
    });
    text += "\n";
    text += &table(&["who", "waited for", "times", "in all", "longest", "not ended", "held by vCPUs"], waits.collect());
    text
}

/// A header as JSON.
#[must_use]
pub fn header_json(header: &Header, end: &End) -> String {
    let header = serde_json::json!({
        "guest": header.guest,
        "guest_hash": header.guest_hash,
        "qemu": header.qemu,
        "plugin": header.plugin,
        "scenario": header.scenario,
        "vcpus": header.config.vcpus,
        "ram": header.config.ram.iter().map(|(first, count)| [first.0, *count]).collect::<Vec<_>>(),
        "facts": header.facts,
        "symbols": header.symbols.len(),
        "steps": end.steps,
        "end": end.to_string(),
    });
    output::json(&header).unwrap_or_default()
}
