//! Whether frames came back with the contents that they were evicted with.
//!
//! A frame that was never evicted has nothing to come back with. A call that writes into a frame says itself what the frame holds from
//! then on. A frame that is ballooned out meanwhile comes back empty, and is loaded by nobody.

use super::not_a_trace;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::toolstack::connections::Connections;
use mem_event::Gfn;
use mem_event::trace::remark::Moment;
use mem_event::trace::{Reader, Record, Remark, Step};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Told one by one up to this number.
const TOLD: usize = 5;

/// What happened to a frame's content, when and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    hash: u64,
    step: u64,
    connection: u32,
}

/// A frame that came back with another content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The frame.
    pub gfn: Gfn,
    /// Its symbol, where one lies there.
    pub symbol: Option<String>,
    /// The step that evicted it, by whom, and the digest of what it held.
    pub evicted: (u64, String, u64),
    /// The step that brought it back, by whom, and the digest of what with.
    pub loaded: (u64, String, u64),
    /// The connection that brought it back.
    pub connection: u32,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = self.symbol.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let ((out, by, was), (into, again, is)) = (&self.evicted, &self.loaded);
        write!(
            f,
            "frame {}{symbol} came back with another content: evicted in step {out} by {by} ({was:016x}), loaded in step {into} by \
             {again} ({is:016x})",
            self.gfn
        )
    }
}

/// Follows the contents of frames through a trace.
#[derive(Debug, Default)]
pub struct Contents {
    evicted: BTreeMap<Gfn, Known>,
    connections: Connections,
    /// The last step, and the connection whose it was.
    last: (u64, u32),
    changed: Vec<(Gfn, Known, Known)>,
}

impl Contents {
    /// The next step, with its number.
    pub fn step(&mut self, number: u64, step: &Step) {
        self.last = (number, step.connection);
    }

    /// The next remark.
    pub fn remark(&mut self, remark: &Remark) {
        self.connections.heard(remark);
        let Remark::Content { gfn, hash, how } = remark else { return };
        let (step, connection) = self.last;
        let now = Known { hash: *hash, step, connection };
        match how {
            Moment::Evicted => {
                self.evicted.insert(*gfn, now);
            }
            Moment::Written => {
                self.evicted.remove(gfn);
            }
            Moment::Loaded => {
                let before = self.evicted.remove(gfn).filter(|before| before.hash != now.hash);
                self.changed.extend(before.map(|before| (*gfn, before, now)));
            }
        }
    }

    /// The frames that came back changed, in their order.
    #[must_use]
    pub fn changed(&self, symbols: &Symbols) -> Vec<Changed> {
        let told = |known: Known| (known.step, self.connections.name(known.connection), known.hash);
        self.changed
            .iter()
            .map(|(gfn, before, now)| Changed {
                gfn: *gfn,
                symbol: symbols.name(gfn.gpa()),
                evicted: told(*before),
                loaded: told(*now),
                connection: now.connection,
            })
            .collect()
    }
}

/// What came back changed in a trace, a sentence each; of many the first ones, and how many more.
///
/// # Errors
/// The file is no trace.
pub fn judge(trace: &Path, symbols: &Symbols) -> Result<Vec<String>, Refusal> {
    let mut reader = Reader::open(trace).map_err(|end| not_a_trace(trace, &end))?;
    let (mut contents, mut number) = (Contents::default(), 0);
    while let Ok(record) = reader.record() {
        match record {
            Record::Step(step) => {
                number += 1;
                contents.step(number, &step);
            }
            Record::Remark(remarked) => contents.remark(&remarked.remark),
        }
    }
    let changed = contents.changed(symbols);
    let mut said: Vec<String> = changed.iter().take(TOLD).map(Changed::to_string).collect();
    let more = changed.len().saturating_sub(TOLD);
    said.extend((more > 0).then(|| format!("{more} more frames came back with another content")));
    Ok(said)
}
