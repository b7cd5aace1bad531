//! `diff`: two traces, aligned by meaning. The order among vCPUs, slots and times are chance; what one vCPU asked and was answered, and
//! what was done to one frame, is not. So each vCPU, each frame and each ring has a track of its own, and tracks are compared.

use super::difference::diff;
use super::open;
use super::row::Row;
use crate::guest::symbols::Symbols;
use crate::output::print;
use crate::toolstack::transcript;
use clap::Args;
use mem_event::trace::Tape;
use mem_event::{Effect, Flags, Input};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `diff`
#[derive(Clone, Debug, Args)]
pub struct Diff {
    /// A trace.
    pub a: PathBuf,
    /// Another one.
    pub b: PathBuf,
}

/// What a track is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// What a vCPU asked, and the answers that it got.
    Vcpu(u32),
    /// What was asked for others than vCPUs.
    Foreign,
    /// What the toolstack did to a frame (of several the first).
    Frame(u64),
    /// Everything else that the toolstack did: rings, settings.
    Domain,
}

/// A line of a track and its step.
type Line = (String, u64);

/// Two tracks that part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// Which.
    pub track: Track,
    /// The step of the first line that differs in the one trace and in the other; none where that track has ended.
    pub steps: (Option<u64>, Option<u64>),
}

/// Other tracks that are named at most.
const NAMED: usize = 10;

/// `diff`; 0 for traces that mean the same, 5 for others, 4 where one is damaged.
///
/// # Errors
/// No trace, an output that cannot be written.
pub fn compare(arguments: &Diff) -> anyhow::Result<u8> {
    let (a, whole_a) = read(&arguments.a)?;
    let (b, whole_b) = read(&arguments.b)?;
    let partings = partings(&a, &b);
    print(&report(&a, &b, &partings))?;
    Ok(match (partings.is_empty(), whole_a && whole_b) {
        (false, _) => 5,
        (true, true) => 0,
        (true, false) => 4,
    })
}

type Tracks = BTreeMap<Track, Vec<Line>>;

fn read(path: &Path) -> anyhow::Result<(Tracks, bool)> {
    let mut tape = open(path)?;
    let symbols = Symbols::of_trace(tape.header());
    let (tracks, end) = tracks(&mut tape, &symbols);
    if let Some(end) = end {
        eprintln!("mem-event: {}: {end}", path.display());
        return Ok((tracks, false));
    }
    Ok((tracks, true))
}

fn tracks(tape: &mut Tape, symbols: &Symbols) -> (Tracks, Option<mem_event::trace::End>) {
    let mut tracks = Tracks::new();
    let mut add = |track: Track, line: String, step: u64| tracks.entry(track).or_default().push((line, step));
    for number in 1..=tape.len() {
        let step = match tape.step(number) {
            Ok(step) => step,
            Err(end) => return (tracks, Some(end)),
        };
        for effect in &step.effects.list {
            match effect {
                Effect::Requested { ring, request, .. } => {
                    let foreign = request.flags.contains(Flags::FOREIGN);
                    let track = if foreign { Track::Foreign } else { Track::Vcpu(request.vcpu.0) };
                    add(track, transcript::asked(*ring, request, symbols), number);
                }
                Effect::Answered { ring, response, .. } => {
                    let foreign = response.flags.contains(Flags::FOREIGN);
                    let track = if foreign { Track::Foreign } else { Track::Vcpu(response.vcpu) };
                    let line = format!("{ring}  answer  gfn {:#x}  {}", response.subject(), response.flags);
                    add(track, line, number);
                }
                Effect::Closed(_) | Effect::Broken(..) | Effect::Crash(_) => {
                    add(Track::Domain, super::row::effect(effect), number);
                }
                _ => {}
            }
        }
        let row = match &step.input {
            Input::Control(_) | Input::ConsumerLost { .. } | Input::FillFailed { .. } | Input::Destroy => {
                Row::new(number, step, symbols)
            }
            _ => continue,
        };
        let track = row.gfn.map_or(Track::Domain, Track::Frame);
        let line = format!("{} -> {}", arguments(&step.input), row.outcome);
        add(track, line, number);
    }
    let end = (!tape.end().is_whole()).then(|| tape.end().clone());
    (tracks, end)
}

/// An operation's arguments as the source spells them.
fn arguments(input: &Input) -> String {
    let text = format!("{input:?}");
    text.trim_start_matches("Control(").trim_end_matches(')').to_owned()
}

/// The tracks that part, the earliest first.
fn partings(a: &Tracks, b: &Tracks) -> Vec<Parting> {
    let none = Vec::new();
    let names: std::collections::BTreeSet<Track> = a.keys().chain(b.keys()).copied().collect();
    let mut partings: Vec<Parting> = names
        .into_iter()
        .filter_map(|track| {
            let (a, b) = (a.get(&track).unwrap_or(&none), b.get(&track).unwrap_or(&none));
            let at = a.iter().zip(b).take_while(|(a, b)| a.0 == b.0).count();
            let step = |lines: &[Line]| lines.get(at).map(|(_, step)| *step);
            (at < a.len() || at < b.len()).then(|| Parting { track, steps: (step(a), step(b)) })
        })
        .collect();
    partings.sort_by_key(|parting| parting.steps.0.unwrap_or(u64::MAX).min(parting.steps.1.unwrap_or(u64::MAX)));
    partings
}

fn report(a: &Tracks, b: &Tracks, partings: &[Parting]) -> String {
    let Some((first, others)) = partings.split_first() else {
        return format!("equal in meaning: {} tracks of vCPUs, frames and the domain\n", a.len());
    };
    let step = |step: Option<u64>| step.map_or_else(|| "the end".to_owned(), |step| format!("step {step}"));
    let mut text = format!(
        "the traces part first in {}: at {} of the one, {} of the other\n\n",
        name(first.track),
        step(first.steps.0),
        step(first.steps.1)
    );
    text += &of_track(a, b, first.track);
    if !others.is_empty() {
        text += &format!("\n{} other tracks part as well, in this order:\n", others.len());
    }
    for other in others.iter().take(NAMED) {
        text += &format!("  {}: {} and {}\n", name(other.track), step(other.steps.0), step(other.steps.1));
    }
    let before = others.iter().find(|other| matches!(other.track, Track::Frame(_) | Track::Domain));
    if let (Some(other), Track::Vcpu(_)) = (before, first.track) {
        text += &format!("\nof these {}:\n{}", name(other.track), of_track(a, b, other.track));
    }
    text
}

fn of_track(a: &Tracks, b: &Tracks, track: Track) -> String {
    let lines = |tracks: &Tracks| {
        let lines = tracks.get(&track).into_iter().flatten();
        lines.map(|(line, _)| line.clone() + "\n").collect::<String>()
    };
    diff(&lines(a), &lines(b))
}

fn name(track: Track) -> String {
    match track {
        Track::Vcpu(vcpu) => format!("vCPU {vcpu}"),
        Track::Foreign => "foreign requests".into(),
        Track::Frame(gfn) => format!("what was done to frame {gfn:#x}"),
        Track::Domain => "what was done to the domain".into(),
    }
}
