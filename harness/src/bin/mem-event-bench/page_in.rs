//! A touch of a paged-out page, from the touch to the guest's next instruction, against a bare handler in the same run.

use crate::bare;
use crate::figure::{Figure, median};
use crate::qemu;
use anyhow::{Context, bail};
use harness::guest::symbols::Symbols;
use harness::run::Job;
use harness::scenario::corpus;
use harness::scenario::settings::Store;
use harness::toolstack::log::Observer;
use harness::toolstack::transcript::{Point, Record};
use harness::verdict::Kind;
use std::time::Instant;

const ROUNDS: usize = 15;
/// As many as the guest touches.
const PAGES: usize = 256;

/// What the guest said at each checkpoint.
#[derive(Default)]
struct Checkpoints(Vec<[u64; 3]>);

impl Observer for Checkpoints {
    fn record(&mut self, _: &Record, _: &Symbols) {}

    fn is_live(&self) -> bool {
        false
    }

    fn stopped(&mut self, at: Point, arguments: [u64; 3]) {
        if let Point::Number(1 | 2) = at {
            self.0.push(arguments);
        }
    }
}

/// The rows: where the pager keeps its pages. The bare handler has its page in memory.
const ROWS: [(&str, Store, Option<f64>); 2] =
    [("page-in-ratio", Store::Memory, Some(1.5)), ("page-in-ratio-file", Store::File, None)];

/// The ratios of the medians.
pub fn ratios(is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Figure>> {
    let rows = ROWS.into_iter().filter(|(name, ..)| is_wanted(name));
    rows.map(|(name, store, goal)| ratio(name, store, goal)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "ticks of some seconds")]
fn ratio(name: &'static str, store: Store, goal: Option<f64>) -> anyhow::Result<Figure> {
    let (mut ours, mut asleep, mut spinning) = (Vec::new(), Vec::new(), Vec::new());
    let (begun, ticks) = (Instant::now(), bare::ticks());
    for _ in 0..ROUNDS {
        ours.push(touch(store)?);
        asleep.push(bare::touch(PAGES, bare::Handler::Asleep)?);
        spinning.push(bare::touch(PAGES, bare::Handler::Spinning)?);
    }
    // The guest's clock is the host's counter.
    let ticks_a_micro = (bare::ticks() - ticks) as f64 / (begun.elapsed().as_secs_f64() * 1e6);
    let (ours, asleep, spinning) = (median(ours) / ticks_a_micro, median(asleep), median(spinning));
    let detail = format!(
        "{ours:.1} µs a touch; a bare userfaultfd copy handler {asleep:.1} µs asleep, {spinning:.1} µs spinning; \
         medians of {ROUNDS} rounds of {PAGES} touches"
    );
    Ok(Figure { name, value: ours / asleep, unit: "ratio", goal, detail })
}

/// The guest's median touch in ticks.
#[expect(clippy::cast_precision_loss, reason = "ticks of some milliseconds")]
fn touch(store: Store) -> anyhow::Result<f64> {
    let mut scenario = corpus::find("page_touch").context("no scenario page_touch")?;
    scenario.consumers.pager.get_or_insert_default().store = store;
    let mut checkpoints = Checkpoints::default();
    let outcome = Job::new(scenario, qemu::named())?.run(&mut checkpoints, None)?;
    if outcome.verdict.kind != Kind::Success || outcome.paged.pages_in != PAGES as u64 {
        bail!("page_touch: {}, {} pages in", outcome.verdict, outcome.paged.pages_in);
    }
    let [_, [median, ..]] = checkpoints.0[..] else { bail!("page_touch has no two checkpoints") };
    Ok(median as f64)
}
