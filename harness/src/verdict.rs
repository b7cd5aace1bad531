//! The five verdicts (after XTF's four, plus crash) and how they add up: the worst wins, and silence is an error.

use serde::Serialize;
use std::fmt;

/// How a run ended, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Everything that was to be shown was shown.
    Success,
    /// It cannot run here.
    Skip,
    /// The test itself, or the machinery around it, is broken.
    Error,
    /// What is under test is broken.
    Failure,
    /// The guest or QEMU died.
    Crash,
}

impl Kind {
    /// The exit code: 0, 3, 4, 5, 6.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Success => 0,
            Kind::Skip => 3,
            Kind::Error => 4,
            Kind::Failure => 5,
            Kind::Crash => 6,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Success => "success",
            Kind::Skip => "skip",
            Kind::Error => "error",
            Kind::Failure => "failure",
            Kind::Crash => "crash",
        })
    }
}

/// A verdict and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Which.
    pub kind: Kind,
    /// Why; may be empty for a success.
    pub reason: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(kind: Kind, reason: impl Into<String>) -> Verdict {
        Verdict { kind, reason: reason.into() }
    }

    /// The worse of both; of two equal ones the first.
    #[must_use]
    pub fn worst(self, other: Verdict) -> Verdict {
        if other.kind > self.kind { other } else { self }
    }

    /// Both: the worse one's kind, then the reasons of both, unless one is a success.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        let (worse, other) = if other.kind > self.kind { (other, self) } else { (self, other) };
        if other.kind == Kind::Success || other == worse {
            return worse;
        }
        let also = if other.kind == worse.kind { other.reason } else { other.to_string() };
        let reason = if worse.reason.is_empty() { also } else { format!("{}; {also}", worse.reason) };
        Verdict { kind: worse.kind, reason }
    }

    /// The last verdict line on a guest's console: `verdict: KIND` or `verdict: KIND: REASON`.
    #[must_use]
    pub fn on_console(console: &str) -> Option<Verdict> {
        console.lines().rev().find_map(|line| parse(line.trim()))
    }
}

fn parse(line: &str) -> Option<Verdict> {
    let rest = line.strip_prefix("verdict: ")?;
    let (word, reason) = rest.split_once([':', ' ']).unwrap_or((rest, ""));
    let kind = [Kind::Success, Kind::Skip, Kind::Error, Kind::Failure, Kind::Crash]
        .into_iter()
        .find(|kind| kind.to_string() == word)?;
    Some(Verdict::new(kind, reason.trim_start_matches([':', ' ', '('])))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Verdict};

    #[test]
    fn the_worst_verdict_wins() {
        let failure = Verdict::new(Kind::Failure, "sum");
        assert_eq!(Verdict::new(Kind::Success, "").worst(failure.clone()), failure);
        assert_eq!(failure.clone().worst(Verdict::new(Kind::Skip, "")), failure);
    }

    #[test]
    fn no_reason_is_lost_to_a_worse_verdict() {
        let (error, failure) = (Verdict::new(Kind::Error, "no watch"), Verdict::new(Kind::Failure, "sum"));
        let both = Verdict::new(Kind::Failure, "sum; error: no watch");
        assert_eq!(error.clone().and(failure.clone()), both);
        assert_eq!(failure.and(error.clone()), both);
        assert_eq!(Verdict::new(Kind::Success, "powered off").and(error.clone()), error);
        assert_eq!(error.clone().and(Verdict::new(Kind::Error, "x")).reason, "no watch; x");
        assert_eq!(error.clone().and(error.clone()), error);
    }

    #[test]
    fn the_last_line_that_is_a_verdict_counts() {
        let console = "boot\nverdict: success\r\nverdict: failure: sum is 3\nbye\n";
        assert_eq!(Verdict::on_console(console), Some(Verdict::new(Kind::Failure, "sum is 3")));
        assert_eq!(Verdict::on_console("no verdict: success here\n"), None);
    }
}
