//! A touch of a paged-out page, from the touch to the guest's next instruction, against a bare handler in the same run.

use crate::bare;
use crate::figure::{Figure, median};
use anyhow::{Context, bail};
use harness::corpus;
use harness::log::Observer;
use harness::run::Job;
use harness::symbols::Symbols;
use harness::transcript::{Point, Record};
use harness::verdict::Kind;
use std::time::Instant;

const ROUNDS: usize = 15;
/// As many as the guest touches.
const PAGES: usize = 256;

/// When each checkpoint was released, and what the guest said with it.
#[derive(Default)]
struct Checkpoints(Vec<(Instant, [u64; 3])>);

impl Observer for Checkpoints {
    fn record(&mut self, record: &Record, _: &Symbols) {
        if let Record::Checkpoint { at: Point::Number(1 | 2), arguments, .. } = record {
            self.0.push((Instant::now(), *arguments));
        }
    }
}

/// The ratio of the medians.
pub fn ratio() -> anyhow::Result<Figure> {
    let (mut ours, mut asleep, mut spinning) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(touch()?);
        asleep.push(bare::touch(PAGES, bare::Handler::Asleep)?);
        spinning.push(bare::touch(PAGES, bare::Handler::Spinning)?);
    }
    let (ours, asleep, spinning) = (median(ours), median(asleep), median(spinning));
    let detail = format!(
        "{ours:.1} µs a touch; a bare userfaultfd copy handler {asleep:.1} µs asleep, {spinning:.1} µs spinning; \
         medians of {ROUNDS} rounds of {PAGES} touches"
    );
    Ok(Figure { name: "page-in-ratio", value: ours / asleep, unit: "ratio", goal: Some(1.5), detail })
}

/// The guest's median touch in microseconds.
#[expect(clippy::cast_precision_loss, reason = "ticks of some milliseconds")]
fn touch() -> anyhow::Result<f64> {
    let scenario = corpus::find("page_touch").context("no scenario page_touch")?;
    let mut checkpoints = Checkpoints::default();
    let outcome = Job::new(scenario, None)?.run(&mut checkpoints, None)?;
    if outcome.verdict.kind != Kind::Success || outcome.paged.pages_in != PAGES as u64 {
        bail!("page_touch: {}, {} pages in", outcome.verdict, outcome.paged.pages_in);
    }
    let [(begun, _), (ended, [median, _, all])] = checkpoints.0[..] else { bail!("page_touch has no two checkpoints") };
    // The guest's clock in terms of ours: all touches in ticks took the time between the checkpoints.
    Ok((ended - begun).as_secs_f64() * 1e6 * median as f64 / all as f64)
}
