//! A scenario with its snapshot, how it is run, and how that went.

use crate::machine::qemu::Gate;
use crate::refusal::Refusal;
use crate::scenario::{Contents, Scenario};
use crate::verdict::{Kind, Verdict};
use std::path::PathBuf;
use std::time::Duration;

/// A scenario with its snapshot.
#[derive(Clone, Debug)]
pub struct Case {
    /// The scenario.
    pub scenario: Scenario,
    /// Where its snapshot is, or would be; nowhere for a built-in one.
    pub file: Option<PathBuf>,
    /// The accepted sequence.
    pub accepted: Option<String>,
    /// Why it cannot be run: what is wrong with its files.
    pub broken: Option<Refusal>,
}

impl Case {
    /// A case whose files are wrong; it is known by the name of its snapshot.
    #[must_use]
    pub fn broken(snapshot: PathBuf, why: Refusal) -> Case {
        let name = snapshot.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Case { scenario: Scenario::bare(&name), file: Some(snapshot), accepted: None, broken: Some(why) }
    }

    /// The same case with faults by a seed, under a name of its own.
    #[must_use]
    pub fn with_faults(&self, seed: u64) -> Case {
        let mut case = self.clone();
        case.scenario.chaos.impose(seed);
        case.scenario.name += &format!(" --chaos {seed}");
        case
    }

    /// The command that runs it again. The name of one with faults by a seed ends in the option that makes them.
    #[must_use]
    pub fn again(&self) -> String {
        let Some(snapshot) = &self.file else { return format!("mem-event test --filter {}", self.scenario.name) };
        let chaos = &self.scenario.chaos;
        let seed = chaos.seed.filter(|_| chaos.is_imposed).map(|seed| format!(" --chaos {seed}"));
        format!("mem-event test {}{}", snapshot.with_extension("toml").display(), seed.unwrap_or_default())
    }
}

/// How cases are run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The QEMU; by default the one in the path.
    pub qemu: Option<PathBuf>,
    /// What stops accesses.
    pub gate: Gate,
    /// Further arguments of the plugin.
    pub plugin: Vec<String>,
    /// Whether frames must come back as they were, where it is not as the scenarios say.
    pub contents: Option<Contents>,
    /// How often each runs; all runs must give the same sequence. At least 1.
    pub repeat: usize,
    /// How often one that failed may be tried again.
    pub retries: u16,
    /// Bytes that the record of a run may have; 1 GiB where nobody says.
    pub trace_limit: Option<u64>,
}

/// How a case went.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// The sequence, where there was one; it is to be accepted only if `verdict` is about the snapshot alone.
    pub sequence: Option<String>,
    /// What it was compared with, where it differs: the accepted sequence, or an earlier run's.
    pub differs_from: Option<String>,
    /// Whether accepting the sequence would make it a success.
    pub acceptable: bool,
    /// How long all runs took.
    pub took: Duration,
    /// How earlier tries ended, of one that was tried again.
    pub failures: Vec<Verdict>,
    /// What the guest wrote, and consumers that are processes on their output.
    pub console: String,
    /// What QEMU and the plugin wrote, and such consumers on their error output.
    pub said: String,
    /// What is wrong with whom, of one that failed: see [`crate::trace::explain`].
    pub explained: Vec<String>,
    /// Where the evidence of its failure is.
    pub evidence: Option<PathBuf>,
}

impl Judged {
    /// A verdict, and nothing else yet.
    #[must_use]
    pub fn new(verdict: Verdict) -> Judged {
        Judged {
            verdict,
            sequence: None,
            differs_from: None,
            acceptable: false,
            took: Duration::ZERO,
            failures: Vec::new(),
            console: String::new(),
            said: String::new(),
            explained: Vec::new(),
            evidence: None,
        }
    }

    /// Whether it is neither a success nor skipped.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        !matches!(self.verdict.kind, Kind::Success | Kind::Skip)
    }

    /// Whether it succeeded after it had failed.
    #[must_use]
    pub fn is_flaky(&self) -> bool {
        !self.has_failed() && !self.failures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Case;
    use crate::scenario::Scenario;

    #[test]
    fn a_case_is_run_again_with_the_faults_that_it_had() {
        let mut case = Case { scenario: Scenario::bare("mine"), file: None, accepted: None, broken: None };
        assert_eq!(case.again(), "mem-event test --filter mine");
        assert_eq!(case.with_faults(3).again(), "mem-event test --filter mine --chaos 3");
        case.file = Some("there/mine.snap".into());
        assert_eq!(case.again(), "mem-event test there/mine.toml");
        assert_eq!(case.with_faults(3).again(), "mem-event test there/mine.toml --chaos 3");
    }
}
