//! What a run has seen so far: records, counts, expectations that did not hold.

use super::transcript::Record;
use crate::guest::symbols::Symbols;
use crate::verdict::{Kind, Verdict};
use mem_event::Ring;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// Hears of each record as it comes.
pub trait Observer {
    /// Something happened.
    fn record(&mut self, record: &Record, symbols: &Symbols);

    /// The consumers have joined a domain with so many vCPUs.
    fn attached(&mut self, _vcpus: u32) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn record(&mut self, _: &Record, _: &Symbols) {}
}

/// Events by kind and how long the longest was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests on the paging ring.
    pub paging: u64,
    /// Requests on the access ring.
    pub access: u64,
    /// Requests on the sharing ring.
    pub sharing: u64,
    /// Stops at checkpoints.
    pub checkpoints: u64,
    /// The longest time from a request's first sight to its answer, in microseconds.
    pub longest_wait_us: u64,
}

impl Counts {
    /// Requests on a ring.
    #[must_use]
    pub fn of(mut self, ring: Ring) -> u64 {
        *self.of_mut(ring)
    }

    fn of_mut(&mut self, ring: Ring) -> &mut u64 {
        match ring {
            Ring::Paging => &mut self.paging,
            Ring::Access => &mut self.access,
            Ring::Sharing => &mut self.sharing,
        }
    }
}

/// Records are kept up to this number; a boot under a paging target has hundreds of thousands.
const KEPT: usize = 100_000;

/// The log of a run.
pub struct Log<'a> {
    /// Names for addresses.
    pub symbols: &'a Symbols,
    /// The first records.
    pub records: Vec<Record>,
    /// All, counted.
    pub counts: Counts,
    /// Expectations that did not hold.
    pub failures: Vec<String>,
    /// What else is to be said of the consumers.
    pub notes: Vec<String>,
    /// Why the domain crashed, if it did.
    pub crash: Option<String>,
    observer: &'a mut dyn Observer,
}

impl<'a> Log<'a> {
    /// An empty log.
    pub fn new(symbols: &'a Symbols, observer: &'a mut dyn Observer) -> Log<'a> {
        let counts = Counts::default();
        Log { symbols, records: Vec::new(), counts, failures: Vec::new(), notes: Vec::new(), crash: None, observer }
    }

    /// The consumers have joined a domain with so many vCPUs.
    pub fn attached(&mut self, vcpus: u32) {
        self.observer.attached(vcpus);
    }

    /// A verdict, and every expectation that did not hold.
    #[must_use]
    pub fn with_failures(&self, verdict: Verdict) -> Verdict {
        let failures = self.failures.iter().map(|failure| Verdict::new(Kind::Failure, failure.clone()));
        failures.fold(verdict, Verdict::and)
    }

    /// Something happened.
    pub fn add(&mut self, record: Record) {
        match &record {
            Record::Checkpoint { .. } => self.counts.checkpoints += 1,
            Record::Event { ring, wait, .. } => self.count(*ring, *wait),
        }
        self.observer.record(&record, self.symbols);
        if self.records.len() < KEPT {
            self.records.push(record);
        }
    }

    fn count(&mut self, ring: Ring, wait: Duration) {
        *self.counts.of_mut(ring) += 1;
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.counts.longest_wait_us = self.counts.longest_wait_us.max(wait);
    }
}

impl fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("counts", &self.counts).field("failures", &self.failures).finish_non_exhaustive()
    }
}
