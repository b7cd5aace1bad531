//! Replays a trace through a fresh engine and compares every effect and every state.

use super::difference::{self, Recent};
use super::{names, not_a_trace, open};
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::toolstack::sequence::rip;
use crate::toolstack::transcript;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mem_event::Effect;
use mem_event::domain::Domain;
use mem_event::trace::replay::{Failure, Summary, replay as drive};
use mem_event::trace::{Header, Reader, Step};
use std::fmt::Write;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Read};
use std::path::Path;

const REMEDY: &str = "name a file that `mem-event run --trace` has written";
/// Steps between two looks at the progress.
const STRIDE: u64 = 1 << 14;

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// What the trace says of its run.
    pub header: Header,
    /// Requests and answers, a line each, if they were asked for.
    pub sequence: String,
    /// Steps that came out as recorded.
    pub steps: u64,
    /// The end of the trace, or what kept the replay from reaching it.
    pub end: Result<Summary, Failure>,
    /// The failure with what came before it, in lines for people; empty without one.
    pub failure: String,
}

/// Replays a trace, `-` for the standard input; with `sequence` the requests and answers are kept as text.
///
/// # Errors
/// A file that is no trace of this version, as a [`Refusal`].
pub fn replay_file(trace: &Path, sequence: bool) -> Result<Replayed, Refusal> {
    replay_with(trace, sequence, None)
}

/// The same, with these names in place of the trace's own.
fn replay_with(trace: &Path, sequence: bool, names: Option<&Symbols>) -> Result<Replayed, Refusal> {
    let bar = ProgressBar::hidden();
    if trace == Path::new("-") {
        return replay_from(trace, std::io::stdin().lock(), sequence, names, &bar);
    }
    let cannot =
        |error: std::io::Error| Refusal::usage(format!("cannot read the trace {}: {error}", trace.display()), REMEDY);
    let file = File::open(trace).map_err(cannot)?;
    let size = file.metadata().map_or(0, |it| it.len());
    if std::io::stderr().is_terminal() && size > 1 << 22 {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.set_length(size);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {eta} left") {
            bar.set_style(style);
        }
    }
    let replayed = replay_from(trace, bar.wrap_read(BufReader::with_capacity(1 << 20, file)), sequence, names, &bar);
    bar.finish_and_clear();
    replayed
}

fn replay_from(
    trace: &Path,
    file: impl Read,
    sequence: bool,
    names: Option<&Symbols>,
    bar: &ProgressBar,
) -> Result<Replayed, Refusal> {
    let reader = Reader::new(file).map_err(|end| not_a_trace(trace, &end))?;
    let header = reader.header().clone();
    let symbols = names.cloned().unwrap_or_else(|| Symbols::of_trace(&header));
    let mut engine = Domain::new(header.config.clone())
        .map_err(|why| Refusal::usage(format!("{}: its domain cannot be: {why}", trace.display()), REMEDY))?;
    let (mut text, mut steps, mut recent) = (String::new(), 0, Recent::default());
    let end = drive(reader, &mut engine, |number, step| {
        steps = number;
        recent.step(number, step);
        if sequence {
            lines(&mut text, number, step, &symbols);
        }
        if number.is_multiple_of(STRIDE) {
            bar.tick();
        }
    });
    let failure = end.as_ref().err().map(|failure| difference::report(failure, &recent, &symbols)).unwrap_or_default();
    Ok(Replayed { header, sequence: text, steps, end, failure })
}

fn lines(text: &mut String, number: u64, step: &Step, symbols: &Symbols) {
    for effect in &step.effects.list {
        let _ = match effect {
            Effect::Requested { ring, request, .. } => {
                writeln!(text, "step {number}  {}", transcript::asked_at(*ring, request, rip(&step.input), symbols))
            }
            Effect::Answered { ring, response, .. } => {
                let (vcpu, gfn, flags) = (response.vcpu, response.subject(), response.flags);
                writeln!(text, "step {number}  answer on {ring}  vcpu {vcpu}  gfn {gfn:#x}  {flags}")
            }
            _ => Ok(()),
        };
    }
}

impl Replayed {
    /// The result as lines for people.
    #[must_use]
    pub fn report(&self) -> String {
        let Header { guest, config, .. } = &self.header;
        let mut text = format!("{}guest {guest}, {} vCPUs\n", self.sequence, config.vcpus);
        let _ = match &self.end {
            Ok(Summary { end, states: 0, .. }) => writeln!(text, "{end}; no difference"),
            Ok(Summary { end, states, .. }) => writeln!(text, "{end}; no difference, nor in {states} states"),
            Err(_) => writeln!(text, "{} steps without a difference\n{}", self.steps, self.failure),
        };
        text
    }

    /// 0 without a difference, 4 for a damaged trace, 5 for a difference.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match &self.end {
            Ok(summary) if summary.end.is_whole() => 0,
            Ok(_) | Err(Failure::Impossible { .. }) => 4,
            Err(Failure::Difference(_) | Failure::State { .. }) => 5,
        }
    }
}

/// `replay`
///
/// # Errors
/// A file that is no trace, or no kernel.
pub fn replay(trace: &Path, sequence: bool, kernel: Option<&Path>) -> anyhow::Result<u8> {
    if kernel.is_some() && trace == Path::new("-") {
        let what = "with --symbols the trace is read twice, and the standard input can be read once";
        return Err(Refusal::usage(what, "name the trace's file").into());
    }
    let names = kernel.map(|kernel| anyhow::Ok(names::of(&mut open(trace)?, Some(kernel))?)).transpose()?;
    let replayed = replay_with(trace, sequence, names.as_ref())?;
    crate::output::print(&replayed.report())?;
    Ok(replayed.exit_code())
}
