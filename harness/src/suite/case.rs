//! A scenario with its snapshot, how it is run, and how that went.

use crate::machine::qemu::Gate;
use crate::scenario::Scenario;
use crate::verdict::Verdict;
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
}

/// How cases are run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The QEMU; by default the one in the path.
    pub qemu: Option<PathBuf>,
    /// What stops accesses.
    pub gate: Gate,
    /// How often each runs; all runs must give the same sequence. At least 1.
    pub repeat: usize,
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
}
