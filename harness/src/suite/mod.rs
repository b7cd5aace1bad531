//! Runs scenarios against their snapshots: which ones, each of them, all of them.
//!
//! A snapshot is `NAME.snap` beside `NAME.toml`, in insta's format; what differs is written as `NAME.snap.new`, so that
//! `cargo insta review` works on it as well as `mem-event test --review`.

pub mod case;
pub mod command;
pub mod junit;
pub mod report;
pub mod snapshot;

use self::case::{Case, Judged, Settings};
use crate::guest::symbols::Symbols;
use crate::machine::folder::RunFolder;
use crate::refusal::{Blame, Refusal};
use crate::run::{Job, Outcome};
use crate::scenario::corpus;
use crate::scenario::{Order, Scenario, Shown};
use crate::toolstack::log::Silent;
use crate::toolstack::transcript::{self, Record};
use crate::trace::replay::replay_file;
use crate::verdict::{Kind, Verdict};
use mem_event::Ring;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The cases of files and folders; the built-in ones if none is named.
///
/// # Errors
/// A path cannot be read, a scenario is wrong, or there is none.
pub fn cases(paths: &[PathBuf]) -> Result<Vec<Case>, Refusal> {
    if paths.is_empty() {
        let case = |scenario: Scenario| {
            let accepted = corpus::snapshot(&scenario.name).map(snapshot::text);
            Case { accepted, file: None, scenario }
        };
        return Ok(corpus::all().into_iter().map(case).collect());
    }
    let mut cases = Vec::new();
    for path in paths {
        for file in files(path)? {
            let scenario = Scenario::load(&file)?;
            let snapshot = file.with_extension("snap");
            cases.push(Case { scenario, accepted: snapshot::read(&snapshot)?, file: Some(snapshot) });
        }
    }
    Ok(cases)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Refusal> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unread = |error: std::io::Error| {
        Refusal::usage(format!("cannot read the folder {}: {error}", path.display()), "name a folder of scenarios")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unread)? {
        let file = entry.map_err(unread)?.path();
        if file.extension().is_some_and(|ending| ending == "toml") {
            files.push(file);
        }
    }
    if files.is_empty() {
        let what = format!("no scenario in {}", path.display());
        return Err(Refusal::usage(what, "name a folder with .toml files, or write one: mem-event new NAME"));
    }
    files.sort();
    Ok(files)
}

/// The part of a run's sequence that its scenario wants kept.
#[must_use]
pub fn sequence(scenario: &Scenario, outcome: &Outcome, symbols: &Symbols) -> String {
    let show = &scenario.snapshot.show;
    let shown = |record: &&Record| match record {
        Record::Checkpoint { .. } => show.contains(&Shown::Checkpoints),
        Record::Event { ring: Ring::Access, .. } => show.contains(&Shown::Access),
        Record::Event { ring: Ring::Paging, .. } => show.contains(&Shown::Paging),
        Record::Event { ring: Ring::Sharing, .. } => show.contains(&Shown::Sharing),
    };
    let records: Vec<Record> = outcome.records.iter().filter(shown).cloned().collect();
    let vcpus = if scenario.snapshot.order == Some(Order::Arrival) { 1 } else { scenario.machine.vcpus };
    let mut text = transcript::text(&records, vcpus, symbols);
    if show.contains(&Shown::Verdict) {
        text += &format!("verdict: {}\n", outcome.verdict);
    }
    text
}

/// One run with its trace, which must replay: the sequence, or the verdict of a run that has none to compare.
fn run_once(scenario: &Scenario, settings: &Settings) -> Result<String, Verdict> {
    let refused = |error: &anyhow::Error| match Refusal::of(error) {
        Some(Refusal { blame: Blame::Machine, what, remedy, .. }) => {
            Verdict::new(Kind::Skip, format!("{what}; {remedy}"))
        }
        Some(Refusal { shown: Some(shown), .. }) => {
            Verdict::new(Kind::Error, shown.strip_prefix("error: ").unwrap_or(&shown))
        }
        Some(refusal) => Verdict::new(Kind::Error, refusal.to_string()),
        None => Verdict::new(Kind::Error, format!("{error:#}")),
    };
    let folder = RunFolder::create().map_err(|error| refused(&error))?;
    let mut job = Job::new(scenario.clone(), settings.qemu.as_deref()).map_err(|refusal| refused(&refusal.into()))?;
    let trace = folder.file("trace");
    job.gate = settings.gate;
    job.trace = Some(trace.clone());
    let outcome = job.run(&mut Silent, None).map_err(|error| refused(&error))?;
    let due = scenario.verdict.0;
    if outcome.verdict.kind != due {
        return Err(match outcome.verdict.kind {
            Kind::Success => Verdict::new(Kind::Failure, format!("it ended in success where {due} is due")),
            _ => outcome.verdict,
        });
    }
    match replay_file(&trace, false) {
        Ok(replayed) if replayed.exit_code() == 0 => Ok(sequence(scenario, &outcome, &job.symbols())),
        Ok(replayed) => Err(Verdict::new(Kind::Failure, format!("its trace does not replay: {}", replayed.report()))),
        Err(refusal) => Err(Verdict::new(Kind::Error, refusal.to_string())),
    }
}

/// Runs a case as often as wanted and compares.
#[must_use]
pub fn judge(case: &Case, settings: &Settings) -> Judged {
    let begun = Instant::now();
    let mut judged = compare(case, settings);
    judged.took = begun.elapsed();
    judged
}

fn compare(case: &Case, settings: &Settings) -> Judged {
    let mut judged = Judged {
        verdict: Verdict::new(Kind::Success, ""),
        sequence: None,
        differs_from: None,
        acceptable: false,
        took: Duration::ZERO,
    };
    for run in 1..=settings.repeat.max(1) {
        match (run_once(&case.scenario, settings), judged.sequence.take()) {
            (Err(verdict), _) => {
                judged.verdict = verdict;
                return judged;
            }
            (Ok(now), None) => judged.sequence = Some(now),
            (Ok(now), Some(first)) if now == first => judged.sequence = Some(first),
            (Ok(now), Some(first)) => {
                judged.verdict = Verdict::new(Kind::Failure, format!("run {run} gave another sequence than the first"));
                (judged.sequence, judged.differs_from) = (Some(now), Some(first));
                return judged;
            }
        }
    }
    let now = judged.sequence.as_deref().unwrap_or_default();
    match &case.accepted {
        Some(accepted) if accepted.trim_end() == now.trim_end() => {}
        accepted => {
            let why = if accepted.is_some() { "the sequence has changed" } else { "there is no accepted sequence yet" };
            judged.verdict = Verdict::new(Kind::Failure, why);
            judged.differs_from = Some(accepted.clone().unwrap_or_default());
            judged.acceptable = true;
        }
    }
    judged
}
