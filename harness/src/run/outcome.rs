//! How a run went.

use crate::consumers::figures::Figures;
use crate::toolstack::counts::Counts;
use crate::toolstack::transcript::Record;
use crate::verdict::Verdict;
use std::time::Duration;

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The sequence.
    pub records: Vec<Record>,
    /// The events, counted.
    pub counts: Counts,
    /// What the pager did.
    pub paged: Figures,
    /// The largest resident memory in bytes after the first trim, and the number of samples; with a target only.
    pub resident: Option<(u64, u64)>,
    /// Who waited for what when the deadline passed.
    pub sleepers: Vec<String>,
    /// What else is to be said of the consumers.
    pub notes: Vec<String>,
    /// Why the record of the run, and so its sequence, is not whole; in the plugin's words.
    pub cut: Option<String>,
    /// What the guest wrote on its serial port.
    pub console: String,
    /// What QEMU and the plugin wrote on the error output.
    pub said: String,
    /// From QEMU's start to its end.
    pub took: Duration,
}
