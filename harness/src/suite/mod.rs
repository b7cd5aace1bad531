//! Runs scenarios against their snapshots: which ones, each of them, all of them.
//!
//! A snapshot is `NAME.snap` beside `NAME.toml`, in insta's format; what differs is written as `NAME.snap.new`, so that
//! `cargo insta review` works on it as well as `mem-event test --review`.

mod attempt;
pub mod case;
pub mod command;
pub mod evidence;
pub mod junit;
pub mod report;
pub mod sequence;
pub mod snapshot;

use self::attempt::Attempt;
use self::case::{Case, Judged, Settings};
use self::evidence::Place;
use crate::refusal::Refusal;
use crate::scenario::Scenario;
use crate::scenario::corpus;
use crate::trace::explain;
use crate::verdict::{Kind, Verdict};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The cases of files and folders; the built-in ones if none is named. A scenario in a folder that is wrong fails as a case of its own; one
/// that was named is refused.
///
/// # Errors
/// A path cannot be read, a scenario that was named is wrong, or there is none.
pub fn cases(paths: &[PathBuf]) -> Result<Vec<Case>, Refusal> {
    if paths.is_empty() {
        let case = |scenario: Scenario| {
            let accepted = corpus::snapshot(&scenario.name).map(snapshot::text);
            Case { accepted, file: None, scenario, broken: None }
        };
        return Ok(corpus::all().into_iter().map(case).collect());
    }
    let mut cases = Vec::new();
    for path in paths {
        for file in files(path)? {
            let snapshot = file.with_extension("snap");
            let read = Scenario::load(&file).and_then(|scenario| Ok((scenario, snapshot::read(&snapshot)?)));
            cases.push(match read {
                Ok((scenario, accepted)) => Case { scenario, accepted, file: Some(snapshot), broken: None },
                Err(refusal) if file == *path => return Err(refusal),
                Err(refusal) => Case::broken(snapshot, refusal),
            });
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

/// Runs a case as often as wanted and compares; again where it fails, as often as may be. What a failure leaves is kept.
#[must_use]
pub fn judge(case: &Case, settings: &Settings, evidence: Option<&Place>) -> Judged {
    let begun = Instant::now();
    let mut judged = tried(case, settings, evidence);
    for _ in 0..settings.retries {
        if !judged.has_failed() {
            break;
        }
        let failure = judged.verdict.clone();
        let mut failures = std::mem::take(&mut judged.failures);
        failures.push(failure);
        judged = Judged { failures, evidence: judged.evidence, ..tried(case, settings, None) };
    }
    judged.took = begun.elapsed();
    judged
}

/// One try: the evidence is that of the first.
fn tried(case: &Case, settings: &Settings, evidence: Option<&Place>) -> Judged {
    if let Some(refusal) = &case.broken {
        return Judged::new(attempt::of_refusal(refusal));
    }
    let (mut judged, last) = compare(case, settings);
    if let Some(outcome) = &last.outcome {
        (judged.console, judged.said) = (outcome.console.clone(), outcome.said.clone());
    }
    judged.console += &last.said("stdout");
    judged.said += &last.said("stderr");
    // A sequence that nobody has looked at yet is no failure of the run's.
    let has_failed = judged.has_failed() && !(judged.acceptable && case.accepted.is_none());
    if let Some(trace) = last.trace().filter(|_| has_failed) {
        judged.explained = explain::sentences(&trace);
    }
    match evidence {
        Some(place) if has_failed => {
            match place.keep(case, &last, &judged) {
                Ok(()) => judged.evidence = Some(place.0.clone()),
                // The failure counts, whatever becomes of its evidence.
                Err(error) => eprintln!("mem-event: {}: no evidence is kept: {error:#}", case.scenario.name),
            }
        }
        Some(place) => place.clear(),
        None => {}
    }
    judged
}

fn compare(case: &Case, settings: &Settings) -> (Judged, Attempt) {
    let mut judged = Judged::new(Verdict::new(Kind::Success, ""));
    let mut attempt = Attempt::of(&case.scenario, settings);
    for run in 1..=settings.repeat.max(1) {
        if run > 1 {
            attempt = Attempt::of(&case.scenario, settings);
        }
        let now = attempt.sequence.clone();
        if attempt.verdict.kind != Kind::Success {
            judged.verdict = attempt.verdict.clone();
            judged.sequence = now;
            return (judged, attempt);
        }
        match judged.sequence.replace(now.unwrap_or_default()) {
            Some(first) if judged.sequence.as_ref() != Some(&first) => {
                judged.verdict = Verdict::new(Kind::Failure, format!("run {run} gave another sequence than the first"));
                judged.differs_from = Some(first);
                return (judged, attempt);
            }
            _ => {}
        }
    }
    if case.scenario.chaos.is_imposed {
        // Refusals and kills are in the sequence.
        return (judged, attempt);
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
    (judged, attempt)
}
