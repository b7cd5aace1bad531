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

    /// Where its consumers' words are.
    #[must_use]
    pub fn words(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.file("words"))
    }

    fn run(&mut self, scenario: &Scenario, settings: &Settings) -> Result<(), Verdict> {
        let folder = self.folder.insert(RunFolder::create().map_err(|error| refused(&error))?);
        let trace = folder.file("trace");
        let mut job =
            Job::new(scenario.clone(), settings.qemu.as_deref()).map_err(|refusal| refused(&refusal.into()))?;
        job.gate = settings.gate;
        job.plugin.clone_from(&settings.plugin);
        job.contents = settings.contents;
        job.trace_limit = settings.trace_limit;
        job.trace = Some(trace.clone());
        let outcome = self.outcome.insert(job.run(&mut Silent, None).map_err(|error| refused(&error))?);
        let due = scenario.verdict.0;
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
        self.sequence = Some(sequence::of(scenario, outcome, &job.symbols()));
        let over = budget::judge(&trace, &scenario.expect).map_err(|refusal| refused(&refusal.into()))?;
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
