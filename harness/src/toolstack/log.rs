//! What a run has seen so far: the sequence as its record has it, expectations that did not hold.

use super::counts::Counts;
use super::doing::Doing;
use super::recording::Recording;
use super::sequence::Placed;
use super::transcript::{Point, Record};
use crate::guest::symbols::Symbols;
use crate::scenario::{Scenario, Time};
use crate::verdict::{Kind, Verdict};
use mem_event::{Control, Gfn};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
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

    /// The domain is about to be served.
    fn served(&mut self, _machine: &Served) {}

    /// The record was looked at; so much is in it.
    fn looked(&mut self, _counts: &Counts) {}
}

/// A machine whose domain is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// QEMU's process.
    pub process: u32,
    /// Where the guest's serial port is written, if this program knows.
    pub console: Option<PathBuf>,
    /// Since when it runs, or this program has to do with it.
    pub begun: Instant,
    /// How long it may take, if that is limited.
    pub deadline: Option<Duration>,
    /// What the guest is held to, in bytes.
    pub target: Option<u64>,
}

impl Served {
    /// That of a scenario, in this process.
    #[must_use]
    pub fn of(scenario: &Scenario, process: u32, console: Option<&Path>, begun: Instant) -> Served {
        let deadline = Some(scenario.deadline).filter(|limit| *limit != Time::FOREVER).map(|limit| limit.0);
        Served { process, console: console.map(Path::to_owned), begun, deadline, target: scenario.target() }
    }
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
    /// The nomination that a connection made last, where it stands and whose it was: its eviction may follow.
    nominated: HashMap<u32, (u64, Gfn, String)>,
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
            nominated: HashMap::new(),
            looked: Instant::now(),
            observer,
        }
    }

    /// The consumers have joined a domain with so many vCPUs.
    pub fn attached(&mut self, vcpus: u32) {
        self.observer.attached(vcpus);
    }

    /// A machine's domain is about to be served.
    pub fn served(&mut self, machine: &Served) {
        self.observer.served(machine);
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
            self.observer.looked(&self.recording.sequence().counts);
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
        for (connection, held) in std::mem::take(&mut self.nominated) {
            self.without_its_eviction(connection, Some(held));
        }
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
            match record {
                Record::Act { connection, .. } if self.own.contains(&connection) => {}
                Record::Act { connection, who, doing, count } => self.act(place, (connection, who, count), doing),
                event => self.keep(place, event),
            }
        }
    }

    /// A connection did something outside of answers. A nomination is held back until it is known whether its eviction follows.
    fn act(&mut self, place: u64, (connection, who, count): (u32, String, usize), doing: Doing) {
        let held = self.nominated.remove(&connection);
        let (place, doing) = match (held, doing) {
            (Some((nominated, gfn, _)), Doing::Operation(Control::Evict { gfn: evicted }, None)) if gfn == evicted => {
                (nominated, Doing::PageOut(gfn))
            }
            (held, doing) => {
                self.without_its_eviction(connection, held);
                (place, doing)
            }
        };
        match doing {
            Doing::Operation(Control::Nominate { gfn }, None) => {
                self.nominated.insert(connection, (place, gfn, who));
            }
            doing => self.fold(place, Record::Act { connection, who, doing, count }),
        }
    }

    fn without_its_eviction(&mut self, connection: u32, held: Option<(u64, Gfn, String)>) {
        if let Some((place, gfn, who)) = held {
            let doing = Doing::Operation(Control::Nominate { gfn }, None);
            self.fold(place, Record::Act { connection, who, doing, count: 1 });
        }
    }

    /// What is done to many frames in a row is one record.
    fn fold(&mut self, place: u64, act: Record) {
        let Record::Act { connection, doing, .. } = &act else { return };
        let last = self.acts.get(connection).and_then(|at| self.placed.get_mut(*at));
        if let Some((_, Record::Act { doing: before, count, .. })) = last
            && doing.verb().is_some()
            && doing.verb() == before.verb()
        {
            *count += 1;
            return;
        }
        self.acts.insert(*connection, self.placed.len());
        self.keep(place, act);
    }

    fn keep(&mut self, place: u64, record: Record) {
        self.observer.record(&record, self.symbols);
        if self.placed.len() < KEPT {
            self.placed.push((place, record));
        }
    }
}

impl fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("counts", &self.counts()).field("failures", &self.failures).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, Silent};
    use crate::guest::symbols::Symbols;
    use crate::toolstack::doing::Doing;
    use crate::toolstack::recording::Recording;
    use crate::toolstack::transcript::{Record, text};
    use mem_event::{Control, Errno, Gfn};
    use std::path::Path;

    /// What the connections 1 and 2 did, in words.
    fn told(acts: &[(u32, Doing)]) -> String {
        let (symbols, mut observer) = (Symbols::default(), Silent);
        let mut log = Log::new(&symbols, Recording::of(Path::new("none")), &mut observer);
        for (place, (connection, doing)) in acts.iter().enumerate() {
            let who = format!("consumer {connection}");
            let act = Record::Act { connection: *connection, who, doing: doing.clone(), count: 1 };
            log.add(vec![(place as u64, act)]);
        }
        log.finish().unwrap();
        text(&log.records, 1, &symbols)
    }

    fn nominate(gfn: u64) -> Doing {
        Doing::Operation(Control::Nominate { gfn: Gfn(gfn) }, None)
    }

    fn evict(gfn: u64, refused: Option<Errno>) -> Doing {
        Doing::Operation(Control::Evict { gfn: Gfn(gfn) }, refused)
    }

    #[test]
    fn a_nomination_and_its_eviction_are_one_act_whoever_acts_in_between() {
        let acts = [(1, nominate(1)), (2, nominate(5)), (1, evict(1, None)), (1, nominate(2)), (1, evict(2, None))];
        assert_eq!(told(&acts), "consumer 1:\n  page out 2 frames\nconsumer 2:\n  nominate 0x5\n");
    }

    #[test]
    fn a_nomination_without_its_eviction_is_told() {
        assert_eq!(told(&[(1, nominate(1)), (1, nominate(2))]), "consumer 1:\n  nominate 2 frames\n");
        assert_eq!(
            told(&[(1, nominate(1)), (1, evict(2, None)), (1, nominate(3)), (1, evict(3, Some(Errno::EBUSY)))]),
            "consumer 1:\n  nominate 0x1\n  evict 0x2\n  nominate 0x3\n  evict 0x3: EBUSY\n"
        );
    }
}
