//! One run of a case, with its trace, which must replay.

use super::case::Settings;
use super::sequence;
use crate::machine::folder::RunFolder;
use crate::refusal::{Blame, Refusal};
use crate::run::{Job, Outcome};
use crate::scenario::Scenario;
use crate::toolstack::log::Silent;
use crate::trace::budget;
use crate::trace::replay::replay_file;
use crate::verdict::{Kind, Verdict};
use std::path::PathBuf;

/// Bytes of a consumer's words that stand in a report; all are in the evidence.
const SAID: usize = 1 << 16;

/// A run, with what it left.
#[derive(Debug)]
pub struct Attempt {
    /// How it went, but for what its sequence is compared with.
    pub verdict: Verdict,
    /// The sequence, of a run that has one to compare.
    pub sequence: Option<String>,
    /// How the domain ended, where there was one.
    pub outcome: Option<Outcome>,
    /// What it wrote, gone with this value; none where no folder could be made.
    folder: Option<RunFolder>,
}

impl Attempt {
    /// Runs a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario, settings: &Settings) -> Attempt {
        let mut attempt =
            Attempt { verdict: Verdict::new(Kind::Success, ""), sequence: None, outcome: None, folder: None };
        if let Err(verdict) = attempt.run(scenario, settings) {
            attempt.verdict = verdict;
        }
        attempt
    }

    /// Its trace, as far as there is one.
    #[must_use]
    pub fn trace(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.file("trace")).filter(|path| path.exists())
    }

    /// What its consumers that are processes said, a file for each one's output and one for its error output, in order of their names.
    #[must_use]
    pub fn words(&self) -> Vec<PathBuf> {
        let folder = self.folder.as_ref().and_then(|folder| std::fs::read_dir(folder.file("words")).ok());
        let mut files: Vec<PathBuf> = folder.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// The last of what all consumers said with this ending (`stdout` or `stderr`), each under its file's name.
    #[must_use]
    pub fn said(&self, ending: &str) -> String {
        let of = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap_or_default();
            let last = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(SAID)..]).into_owned();
            let name = path.file_name().unwrap_or_default().display().to_string();
            if last.is_empty() { last } else { format!("{name}:\n{}\n", last.trim_end()) }
        };
        self.words().iter().filter(|path| path.extension().is_some_and(|it| it == ending)).map(of).collect()
    }

    fn run(&mut self, scenario: &Scenario, settings: &Settings) -> Result<(), Verdict> {
        let folder = self.folder.insert(RunFolder::create().map_err(|error| refused(&error))?);
        let trace = folder.file("trace");
        let mut scenario = scenario.clone();
        let words = folder.file("words");
        std::fs::create_dir(&words).map_err(|error| refused(&error.into()))?;
        scenario.consumers.words = Some(words);
        let due = scenario.verdict.0;
        let mut job = Job::new(scenario, settings.qemu.as_deref()).map_err(|refusal| refused(&refusal.into()))?;
        job.gate = settings.gate;
        job.plugin.clone_from(&settings.plugin);
        job.contents = settings.contents;
        job.trace_limit = settings.trace_limit;
        job.trace = Some(trace.clone());
        let outcome = self.outcome.insert(job.run(&mut Silent, None).map_err(|error| refused(&error))?);
        if outcome.verdict.kind != due {
            return Err(match outcome.verdict.kind {
                Kind::Success => Verdict::new(Kind::Failure, format!("it ended in success where {due} is due")),
                _ => outcome.verdict.clone(),
            });
        }
        if let Some(why) = &outcome.cut {
            let remedy = "a sequence is judged by all of it: give a larger --trace-limit, or room in TMPDIR";
            return Err(Verdict::new(Kind::Error, format!("{why}; {remedy}")));
        }
        match replay_file(&trace, false) {
            Ok(replayed) if replayed.exit_code() == 0 => {}
            Ok(replayed) => {
                return Err(Verdict::new(Kind::Failure, format!("its trace does not replay: {}", replayed.report())));
            }
            Err(refusal) => return Err(Verdict::new(Kind::Error, refusal.to_string())),
        }
        self.sequence = Some(sequence::of(&job.scenario, outcome, &job.symbols()));
        let over = budget::judge(&trace, &job.scenario.expect).map_err(|refusal| refused(&refusal.into()))?;
        if over.is_empty() { Ok(()) } else { Err(Verdict::new(Kind::Failure, over.join("; "))) }
    }
}

/// The verdict of a run that did not come about.
fn refused(error: &anyhow::Error) -> Verdict {
    match Refusal::of(error) {
        Some(Refusal { blame: Blame::Machine, what, remedy, .. }) => {
            Verdict::new(Kind::Skip, format!("{what}; {remedy}"))
        }
        Some(refusal) => of_refusal(&refusal),
        None => Verdict::new(Kind::Error, format!("{error:#}")),
    }
}

/// What somebody wrote down wrongly, in its place where that is known.
pub fn of_refusal(refusal: &Refusal) -> Verdict {
    let shown = refusal.shown.as_ref().map(|shown| shown.strip_prefix("error: ").unwrap_or(shown).to_owned());
    Verdict::new(Kind::Error, shown.unwrap_or_else(|| refusal.to_string()))
}
