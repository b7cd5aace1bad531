//! Replays a trace through a fresh engine and compares every effect.

use crate::refusal::Refusal;
use crate::symbols::Symbols;
use crate::transcript;
use mem_event::domain::Domain;
use mem_event::trace::replay::{Difference, Failure, replay as drive};
use mem_event::trace::{End, Header, Reader, Step, Why};
use mem_event::{Effect, Effects, Outcome};
use std::fmt::Write;
use std::path::Path;

const REMEDY: &str = "name a file that `mem-event run --trace` has written";

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
    pub end: Result<End, Failure>,
}

/// Replays a trace; with `sequence` the requests and answers are kept as text.
///
/// # Errors
/// A file that is no trace of this version, as a [`Refusal`].
pub fn replay_file(trace: &Path, sequence: bool) -> Result<Replayed, Refusal> {
    let reader = Reader::open(trace).map_err(|end| not_a_trace(trace, &end))?;
    let header = reader.header().clone();
    let mut engine = Domain::new(header.config.clone())
        .map_err(|why| Refusal::usage(format!("{}: its domain cannot be: {why}", trace.display()), REMEDY))?;
    let (mut text, mut steps) = (String::new(), 0);
    let end = drive(reader, &mut engine, |number, step| {
        steps = number;
        if sequence {
            lines(&mut text, number, step);
        }
    });
    Ok(Replayed { header, sequence: text, steps, end: end.map(|summary| summary.end) })
}

fn not_a_trace(trace: &Path, end: &End) -> Refusal {
    let what = match &end.why {
        Why::Unreadable(why) => format!("cannot read the trace {}: {why}", trace.display()),
        Why::Cut(_) | Why::Stopped => format!("{} ends before its header does", trace.display()),
        _ => format!("{}: {end}", trace.display()),
    };
    Refusal::usage(what, REMEDY)
}

fn lines(text: &mut String, number: u64, step: &Step) {
    for effect in &step.effects.list {
        let _ = match effect {
            Effect::Requested { ring, request, .. } => {
                writeln!(text, "step {number}  {}", transcript::asked(*ring, request, &Symbols::default()))
            }
            Effect::Answered { ring, response, .. } => {
                let (vcpu, gfn, flags) = (response.vcpu, response.gfn, response.flags);
                writeln!(text, "step {number}  answer on {ring}  vcpu {vcpu}  gfn {gfn}  {flags}")
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
            Ok(end) => writeln!(text, "{end}; no difference"),
            Err(Failure::Impossible { step, why }) => {
                writeln!(text, "{} steps without a difference; step {step} cannot come from a run: {why}", self.steps)
            }
            Err(failure @ Failure::State { .. }) => {
                writeln!(text, "{} steps without a difference\n{failure}", self.steps)
            }
            Err(Failure::Difference(difference)) => {
                writeln!(text, "{} steps without a difference\n{}", self.steps, differing(difference))
            }
        };
        text
    }

    /// 0 without a difference, 4 for a damaged trace, 5 for a difference.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match &self.end {
            Ok(end) if end.is_whole() => 0,
            Ok(_) | Err(Failure::Impossible { .. }) => 4,
            Err(Failure::Difference(_) | Failure::State { .. }) => 5,
        }
    }
}

fn differing(difference: &Difference) -> String {
    let Difference { step, recorded, outcome, effects } = difference;
    let mut text = format!("step {step} differs: {:?}\n", recorded.input);
    text += &one_side("recorded", &recorded.outcome, &recorded.effects);
    text += &one_side("now", outcome, effects);
    text.trim_end().into()
}

fn one_side(name: &str, outcome: &Outcome, effects: &Effects) -> String {
    let list: String = effects.list.iter().map(|effect| format!("    {effect:?}\n")).collect();
    format!("  {name}: {outcome:?}, {} effects\n{list}", effects.list.len())
}

/// `replay`
///
/// # Errors
/// A file that is no trace.
pub fn replay(trace: &Path, sequence: bool) -> anyhow::Result<u8> {
    let replayed = replay_file(trace, sequence)?;
    crate::command::print(&replayed.report())?;
    Ok(replayed.exit_code())
}
