//! What a run has seen so far: the sequence as its record has it, expectations that did not hold.

use super::counts::Counts;
use super::recording::Recording;
use super::sequence::Placed;
use super::transcript::{Point, Record};
use crate::guest::symbols::Symbols;
use crate::verdict::{Kind, Verdict};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

/// Hears of each record as it comes.
pub trait Observer {
    /// Something happened.
    fn record(&mut self, record: &Record, symbols: &Symbols);

    /// Whether it hears of records while they come, and not all of them at the end.
    fn is_live(&self) -> bool {
        true
    }

    /// The consumers have joined a domain with so many vCPUs.
    fn attached(&mut self, _vcpus: u32) {}

    /// A vCPU stands at a checkpoint, and what the scenario does there is done.
    fn stopped(&mut self, _at: Point, _arguments: [u64; 3]) {}
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn record(&mut self, _: &Record, _: &Symbols) {}

    fn is_live(&self) -> bool {
        false
    }
}

/// Records are kept up to this number; a boot under a paging target has hundreds of thousands.
const KEPT: usize = 100_000;

/// Between two looks at the record for an observer that hears of it while it grows.
pub const LOOK: Duration = Duration::from_millis(50);

/// The log of a run.
pub struct Log<'a> {
    /// Names for addresses.
    pub symbols: &'a Symbols,
    /// The first records of the sequence, once the run has ended.
    pub records: Vec<Record>,
    /// Expectations that did not hold.
    pub failures: Vec<String>,
    /// What else is to be said of the consumers.
    pub notes: Vec<String>,
    /// Why the domain crashed, if it did.
    pub crash: Option<String>,
    recording: Recording,
    /// As far as it was read.
    placed: Vec<Placed>,
    /// This program's own connections: what they do outside of answers, the scenario says.
    own: HashSet<u32>,
    /// Where the last act of each connection is among the records.
    acts: HashMap<u32, usize>,
    looked: Instant,
    observer: &'a mut dyn Observer,
}

impl<'a> Log<'a> {
    /// An empty log of a run with this record.
    pub fn new(symbols: &'a Symbols, recording: Recording, observer: &'a mut dyn Observer) -> Log<'a> {
        Log {
            symbols,
            records: Vec::new(),
            failures: Vec::new(),
            notes: Vec::new(),
            crash: None,
            recording,
            placed: Vec::new(),
            own: HashSet::new(),
            acts: HashMap::new(),
            looked: Instant::now(),
            observer,
        }
    }

    /// The consumers have joined a domain with so many vCPUs.
    pub fn attached(&mut self, vcpus: u32) {
        self.observer.attached(vcpus);
    }

    /// A vCPU stands at a checkpoint, and what the scenario does there is done.
    pub fn stopped(&mut self, at: Point, arguments: [u64; 3]) {
        self.observer.stopped(at, arguments);
    }

    /// A connection is this program's own.
    pub fn is_own(&mut self, connection: u32) {
        self.own.insert(connection);
    }

    /// The requests and checkpoints that were read.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.recording.sequence().counts
    }

    /// Whether the record is to be looked at every [`LOOK`].
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.observer.is_live() || self.recording.is_pipe()
    }

    /// Looks at the record, where somebody hears of it while it grows and the last look is long enough ago.
    pub fn look(&mut self) {
        if self.is_followed() && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let mut fresh = Vec::new();
            self.recording.read(&mut fresh);
            self.add(fresh);
        }
    }

    /// Reads the record up to this step.
    ///
    /// # Errors
    /// The recording has ended before.
    pub fn read_to(&mut self, steps: u64) -> anyhow::Result<()> {
        let mut fresh = Vec::new();
        let read = self.recording.read_to(steps, &mut fresh);
        self.add(fresh);
        read
    }

    /// The run has ended: reads the rest of its record.
    ///
    /// # Errors
    /// The record is damaged.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        let mut fresh = Vec::new();
        let read = self.recording.finish(&mut fresh);
        self.add(fresh);
        let mut placed = std::mem::take(&mut self.placed);
        placed.sort_by_key(|(place, _)| *place);
        self.records = placed.into_iter().map(|(_, record)| record).collect();
        read
    }

    /// A verdict, and every expectation that did not hold.
    #[must_use]
    pub fn with_failures(&self, verdict: Verdict) -> Verdict {
        let failures = self.failures.iter().map(|failure| Verdict::new(Kind::Failure, failure.clone()));
        failures.fold(verdict, Verdict::and)
    }

    fn add(&mut self, fresh: Vec<Placed>) {
        for (place, record) in fresh {
            if let Record::Act { connection, doing, .. } = &record {
                if self.own.contains(connection) {
                    continue;
                }
                let last = self.acts.get(connection).and_then(|at| self.placed.get_mut(*at));
                if let Some((_, Record::Act { doing: before, count, .. })) = last
                    && doing.verb().is_some()
                    && doing.verb() == before.verb()
                {
                    *count += 1;
                    continue;
                }
                self.acts.insert(*connection, self.placed.len());
            }
            self.observer.record(&record, self.symbols);
            if self.placed.len() < KEPT {
                self.placed.push((place, record));
            }
        }
    }
}

impl fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("counts", &self.counts()).field("failures", &self.failures).finish_non_exhaustive()
    }
}
