//! Which fault comes at which moment: a pure function of the plan and the moment. A plan is text in one line: `seed 7;without kill;refuse evict
//! 3 EBUSY 1`.
//!
//! A seed decides first which kinds of faults it makes at all, so that some runs have few kinds and some have all. Faults are frequent
//! among the first moments of a place, where a consumer's program is new to the test, and rare later, so that a run of a hundred thousand
//! events still ends.

use super::draw::Draw;
use super::fault::{Fault, Kind, Refusable};
use mem_event::{Errno, Ring};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// No more calls of a kind than this are refused one after the other by a seed, so a consumer that tries again gets through.
pub const ROW: u64 = 3;
/// How late by a seed a notification may be at most, or responses.
const LATEST: Duration = Duration::from_millis(20);
/// By a seed the consumer of a ring is killed once among the requests of each of these spans, or not at all.
const KILLS: [(u64, u64); 3] = [(1, 24), (25, 200), (201, 1600)];

/// The faults of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Faults by this seed.
    pub seed: Option<u64>,
    /// Kinds that the seed makes none of.
    pub without: Vec<Kind>,
    /// Faults by name. Where one comes at a moment, none of the seed does.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// No faults.
    #[must_use]
    pub const fn none() -> Plan {
        Plan { seed: None, without: Vec::new(), faults: Vec::new() }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.seed.is_none() && self.faults.is_empty()
    }

    /// The error with which the `nth` call of a kind is refused, if it is.
    #[must_use]
    pub fn refusal(&self, wanted: Refusable, at: u64) -> Option<Errno> {
        let named = self.faults.iter().find_map(|fault| match *fault {
            Fault::Refuse { call, nth, times, errno } if call == wanted => {
                (nth..nth.saturating_add(times)).contains(&at).then_some(errno)
            }
            _ => None,
        });
        named.or_else(|| {
            let (draw, place) = (self.draw(Kind::Refuse)?, place(Kind::Refuse, wanted as u64));
            let hits = |nth: u64| draw.hits(place, nth, rarity(nth));
            let in_row = (1..=ROW).all(|back| at > back && hits(at - back));
            let errors = wanted.errors();
            let one = usize::try_from(draw.number(place + 1, at) % errors.len() as u64).unwrap_or(0);
            (hits(at) && !in_row).then(|| errors[one])
        })
    }

    /// The fault that comes with the `nth` request of a ring: a kill, a late notification or one too many.
    #[must_use]
    pub fn at_request(&self, ring: Ring, nth: u64) -> Option<Fault> {
        let is_here = |fault: &&Fault| match **fault {
            Fault::Kill { ring: r, nth: n }
            | Fault::LateNotification { ring: r, nth: n, .. }
            | Fault::SpuriousNotification { ring: r, nth: n, .. } => (r, n) == (ring, nth),
            Fault::Refuse { .. } | Fault::LateResponse { .. } => false,
        };
        if let Some(named) = self.faults.iter().find(is_here) {
            return Some(*named);
        }
        if self.kills(ring, nth) {
            return Some(Fault::Kill { ring, nth });
        }
        if let Some(by) = self.delay(Kind::LateNotification, ring, nth) {
            return Some(Fault::LateNotification { ring, nth, by });
        }
        self.delay(Kind::SpuriousNotification, ring, nth).map(|by| Fault::SpuriousNotification { ring, nth, by })
    }

    /// How late the responses are taken that are there at the `nth` time, if they are late.
    #[must_use]
    pub fn at_response(&self, wanted: Ring, at: u64) -> Option<Duration> {
        let named = self.faults.iter().find_map(|fault| match *fault {
            Fault::LateResponse { ring, nth, by } => ((ring, nth) == (wanted, at)).then_some(by),
            _ => None,
        });
        named.or_else(|| self.delay(Kind::LateResponse, wanted, at))
    }

    fn kills(&self, ring: Ring, nth: u64) -> bool {
        let Some(draw) = self.draw(Kind::Kill) else { return false };
        let place = place(Kind::Kill, ring as u64);
        (0..).zip(KILLS).any(|(span, (first, last))| {
            // A span of twice the length: the kill falls behind it as often as not.
            first + draw.number(place, span) % (2 * (last - first + 1)) == nth && nth <= last
        })
    }

    fn delay(&self, kind: Kind, ring: Ring, nth: u64) -> Option<Duration> {
        let (draw, place) = (self.draw(kind)?, place(kind, ring as u64));
        let latest = u64::try_from(LATEST.as_micros()).unwrap_or(u64::MAX);
        draw.hits(place, nth, rarity(nth)).then(|| Duration::from_micros(1 + draw.number(place + 1, nth) % latest))
    }

    /// The seed's draws, where it makes faults of this kind: of three seeds in four.
    fn draw(&self, kind: Kind) -> Option<Draw> {
        let draw = Draw(self.seed?);
        (!self.without.contains(&kind) && !draw.hits(place(kind, 0) + 2, 0, 4)).then_some(draw)
    }
}

/// Each kind of fault at each call or ring has numbers of its own, four of them.
const fn place(kind: Kind, of: u64) -> u64 {
    ((kind as u64) << 8 | of) << 2
}

/// One in how many moments has a fault.
const fn rarity(nth: u64) -> u64 {
    match nth {
        0..=64 => 6,
        65..=1024 => 64,
        _ => 2048,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.seed.iter().map(|seed| format!("seed {seed}"));
        let without = self.without.iter().map(|kind| format!("without {}", kind.name()));
        let parts: Vec<String> = seed.chain(without).chain(self.faults.iter().map(Fault::to_string)).collect();
        f.write_str(&parts.join(";"))
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Plan, String> {
        let mut plan = Plan::none();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            match part.split_once(' ') {
                Some(("seed", seed)) => {
                    plan.seed = Some(seed.parse().map_err(|_| format!("{seed:?} is no seed; write a number"))?);
                }
                Some(("without", kind)) => {
                    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
                    plan.without.push(known.ok_or_else(|| format!("{kind:?} is no kind of fault"))?);
                }
                _ => plan.faults.push(part.parse()?),
            }
        }
        Ok(plan)
    }
}
