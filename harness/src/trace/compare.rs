//! `diff`: two traces, aligned by meaning. The order among vCPUs, slots and times are chance; what one vCPU asked and was answered, and
//! what was done to one frame, is not. So each vCPU, each frame and each ring has a track of its own, and tracks are compared.

use super::difference::diff;
use super::progress::Progress;
use super::row::Row;
use super::{names, open};
use crate::guest::symbols::Symbols;
use crate::output::print;
use crate::toolstack::sequence::rip;
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
    /// Lines of the difference that are shown at most; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,
    /// The symbols of the Linux that both guests ran, as of `show`: requests are then compared with the functions that made them.
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
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

/// Tracks that are named at most.
const NAMED: usize = 10;
/// Equal lines before those that differ.
const CONTEXT: usize = 3;

/// `diff`; 0 for traces that mean the same, 5 for others, 4 where one is damaged.
///
/// # Errors
/// No trace, an output that cannot be written.
pub fn compare(arguments: &Diff) -> anyhow::Result<u8> {
    let (a, whole_a) = read(&arguments.a, arguments.symbols.as_deref())?;
    let (b, whole_b) = read(&arguments.b, arguments.symbols.as_deref())?;
    let partings = partings(&a, &b);
    print(&report(&a, &b, &partings, arguments.limit))?;
    Ok(match (partings.is_empty(), whole_a && whole_b) {
        (false, _) => 5,
        (true, true) => 0,
        (true, false) => 4,
    })
}

type Tracks = BTreeMap<Track, Vec<Line>>;

fn read(path: &Path, kernel: Option<&Path>) -> anyhow::Result<(Tracks, bool)> {
    let mut tape = open(path)?;
    let symbols = names::of(&mut tape, kernel)?;
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
    let progress = Progress::new("steps", tape.len());
    for number in 1..=tape.len() {
        progress.at(number);
        let step = match tape.step(number) {
            Ok(step) => step,
            Err(end) => return (tracks, Some(end)),
        };
        for effect in &step.effects.list {
            match effect {
                Effect::Requested { ring, request, .. } => {
                    let foreign = request.flags.contains(Flags::FOREIGN);
                    let track = if foreign { Track::Foreign } else { Track::Vcpu(request.vcpu.0) };
                    add(track, transcript::asked_at(*ring, request, rip(&step.input), symbols), number);
                }
                Effect::Answered { ring, response, .. } => {
                    let foreign = response.flags.contains(Flags::FOREIGN);
                    let track = if foreign { Track::Foreign } else { Track::Vcpu(response.vcpu) };
                    let line = format!("{ring}  answer  gfn {:#x}  {}", response.subject(), response.flags);
                    add(track, line, number);
                }
                Effect::Closed(_) | Effect::Broken(..) | Effect::Crash(_) | Effect::Lost { .. } => {
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
    progress.end();
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

fn report(a: &Tracks, b: &Tracks, partings: &[Parting], limit: usize) -> String {
    let Some((first, others)) = partings.split_first() else {
        return match a.len() {
            0 => "equal in meaning: nothing was asked or done in either\n".to_owned(),
            tracks => format!("equal in meaning: {tracks} tracks of vCPUs, frames and the domain\n"),
        };
    };
    let mut text = summary(a, b, partings);
    text += &of_track(a, b, first, limit);
    let before = others.iter().find(|other| matches!(other.track, Track::Frame(_) | Track::Domain));
    if let (Some(other), Track::Vcpu(_)) = (before, first.track) {
        text += &format!("\n{}:\n{}", name(other.track), of_track(a, b, other, limit));
    }
    text
}

/// How much differs, and where it begins.
fn summary(a: &Tracks, b: &Tracks, partings: &[Parting]) -> String {
    let step = |step: Option<u64>| step.map_or_else(|| "the end".to_owned(), |step| format!("step {step}"));
    let all: std::collections::BTreeSet<Track> = a.keys().chain(b.keys()).copied().collect();
    let lines = |tracks: &Tracks| tracks.values().map(Vec::len).sum::<usize>();
    let mut text = format!(
        "{} of {} tracks part; {} requests, answers and operations in the one, {} in the other\n",
        partings.len(),
        all.len(),
        lines(a),
        lines(b)
    );
    for (at, parting) in partings.iter().take(NAMED).enumerate() {
        let order = if at == 0 { "first" } else { "then" };
        let (one, other) = (step(parting.steps.0), step(parting.steps.1));
        text += &format!("  {order} {}: at {one} of the one, {other} of the other\n", name(parting.track));
    }
    if partings.len() > NAMED {
        text += &format!("  and {} more\n", partings.len() - NAMED);
    }
    text + &partings.first().map(|first| format!("\n{}:\n", name(first.track))).unwrap_or_default()
}

/// The lines of a track from where it parts, with some that are equal before; at most so many.
fn of_track(a: &Tracks, b: &Tracks, parting: &Parting, limit: usize) -> String {
    let none = Vec::new();
    let (a, b) = (a.get(&parting.track).unwrap_or(&none), b.get(&parting.track).unwrap_or(&none));
    let at = a.iter().zip(b).take_while(|(a, b)| a.0 == b.0).count();
    let limit = if limit == 0 { usize::MAX } else { limit };
    // What is compared is as long as what is shown: two long tracks would take very long.
    let part = |lines: &[Line]| {
        let lines = lines.iter().skip(at.saturating_sub(CONTEXT)).take(limit.saturating_add(CONTEXT));
        lines.map(|(line, _)| line.clone() + "\n").collect::<String>()
    };
    let whole = diff(&part(a), &part(b));
    let shown: Vec<&str> = whole.lines().take(limit).collect();
    let left = a.len().max(b.len()).saturating_sub(at).saturating_sub(limit);
    let left = left.max(whole.lines().count() - shown.len());
    let mut text: String = shown.iter().map(|line| format!("{line}\n")).collect();
    if left > 0 {
        text += &format!("… {left} more lines of this track; --limit 0 shows all\n");
    }
    text
}

fn name(track: Track) -> String {
    match track {
        Track::Vcpu(vcpu) => format!("vCPU {vcpu}"),
        Track::Foreign => "foreign requests".into(),
        Track::Frame(gfn) => format!("what was done to frame {gfn:#x}"),
        Track::Domain => "what was done to the domain".into(),
    }
}
