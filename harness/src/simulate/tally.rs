//! What is counted: over the whole run what became of the events, and over the measured part of it how long things took.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// What became of events, from the beginning to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That were made.
    pub made: u64,
    /// Whose answer was taken.
    pub answered: u64,
    /// That the policy lost.
    pub lost: u64,
    /// That a foreign producer gave up.
    pub refused: u64,
    /// Tries of foreign producers that found no slot.
    pub refusals: u64,
    /// vCPUs that were woken.
    pub wakes: u64,
    /// And slept again.
    pub in_vain: u64,
}

/// Lengths of time.
#[derive(Clone, Debug)]
pub struct Waits {
    histogram: Histogram<u64>,
    /// Those that took no time at all: most waits for a slot, where there are slots.
    none: u64,
    sum: u128,
    longest: u64,
}

/// The longest time that is told from longer ones: a day.
const LONGEST: u64 = 86_400_000_000_000;

impl Waits {
    /// None yet.
    #[must_use]
    pub fn new() -> Waits {
        // Three digits from 1 ns to a day are bounds that the library takes.
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        let histogram = histogram.unwrap_or_else(|error| unreachable!("bounds of a histogram: {error}"));
        Waits { histogram, none: 0, sum: 0, longest: 0 }
    }

    /// One more.
    #[inline]
    pub fn add(&mut self, time: u64) {
        if time == 0 {
            self.none += 1;
            return;
        }
        self.histogram.saturating_record(time);
        self.sum += u128::from(time);
        self.longest = self.longest.max(time);
    }

    /// Both together.
    fn and(&self, other: &Waits) -> Waits {
        let mut both = self.clone();
        both.histogram += &other.histogram;
        both.none += other.none;
        both.sum += other.sum;
        both.longest = both.longest.max(other.longest);
        both
    }

    /// The length that this share of them does not exceed.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let within = share * self.count() as f64 - self.none as f64;
        if within <= 0.0 {
            return 0;
        }
        // A bucket's upper edge may lie beyond all that was seen.
        self.histogram.value_at_quantile(within / self.histogram.len() as f64).min(self.longest)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.none + self.histogram.len()
    }

    /// The mean, 0 where there is none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.longest
    }
}

impl Default for Waits {
    fn default() -> Waits {
        Waits::new()
    }
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// From the beginning on.
    pub counts: Counts,
    /// The same, when the measured part began.
    pub before: Counts,
    /// The same, when it ended.
    pub after: Option<Counts>,
    /// From a vCPU's event until it runs again, where its request was put at once: both a standstill and a wait for the answer, and most of
    /// all waits where there are slots.
    direct: Waits,
    /// The same, of other events.
    stopped: Waits,
    /// From a vCPU's event until its request is put.
    pub slot: Waits,
    /// From a request's being put until its vCPU runs again, where it was not put at once.
    answer: Waits,
    /// What happened against the protocol's rules, and how often.
    pub broken: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Forgets what took how long: the measured part begins.
    pub fn begin(&mut self) {
        self.before = self.counts;
        (self.direct, self.stopped, self.slot, self.answer) = Default::default();
    }

    /// A vCPU runs again that stood still from one time to another. `put`: in between its request was, and it waited for the answer.
    #[inline]
    pub fn stood_still(&mut self, begun: u64, put: Option<u64>, runs: u64) {
        if put == Some(begun) {
            return self.direct.add(runs - begun);
        }
        self.stopped.add(runs - begun);
        if let Some(put) = put {
            self.answer.add(runs - put);
        }
    }

    /// How long vCPUs stood still.
    #[must_use]
    pub fn stopped(&self) -> Waits {
        self.stopped.and(&self.direct)
    }

    /// How long they did from their requests' being put on.
    #[must_use]
    pub fn answer(&self) -> Waits {
        self.answer.and(&self.direct)
    }

    /// Whether the measured part has not ended.
    #[inline]
    #[must_use]
    pub fn measures(&self) -> bool {
        self.after.is_none()
    }

    /// Something went against the rules.
    pub fn breaks(&mut self, rule: &'static str) {
        *self.broken.entry(rule).or_default() += 1;
    }
}
