//! The consumer's answers against the recorded ones. The first difference is kept with the steps before it.

use super::engine::{Engine, News};
use super::exchange::{Answer, Exchange, Exchanges, Key, is_pagers};
use super::fault::{asked, frame};
use super::script::{Script, restricted};
use crate::guest::symbols::Symbols;
use mem_event::{CpuEventKind, Gfn, Ring};
use std::collections::HashMap;

/// A difference in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The live step where it shows.
    pub step: u64,
    /// What it is about, in one word.
    pub kind: &'static str,
    /// What differs.
    pub what: String,
    /// What was recorded, and what is now.
    pub recorded_and_now: [String; 2],
    /// The ten steps before it and itself, as a table.
    pub before: String,
}

/// The comparison as far as it has come.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Recorded requests by whose they are.
    recorded: HashMap<Key, Vec<usize>>,
    /// The place among them of each live request, by its own place.
    counterpart: Vec<Option<usize>>,
    /// How many live requests there were of each.
    live: HashMap<Key, usize>,
    /// The first difference.
    pub first: Option<Difference>,
    /// How many there are.
    pub count: u64,
    /// Page-ins that the recording does not have.
    pub other_frames: u64,
}

impl Comparison {
    /// Against these recorded requests.
    #[must_use]
    pub fn with(recorded: &Exchanges) -> Comparison {
        let mut comparison = Comparison::default();
        for (place, exchange) in recorded.all.iter().enumerate() {
            comparison.recorded.entry(exchange.key()).or_default().push(place);
        }
        comparison
    }

    /// Looks at what the last steps did.
    pub fn look(&mut self, engine: &mut Engine, script: &Script, symbols: &Symbols) {
        for news in std::mem::take(&mut engine.news) {
            match news {
                News::Put(place) => self.put(place, engine, script, symbols),
                News::Answered(place) => self.answered(place, engine, script, symbols),
                News::Evicted(gfn) => self.evicted(gfn, engine, script, symbols),
            }
        }
    }

    fn put(&mut self, place: usize, engine: &Engine, script: &Script, symbols: &Symbols) {
        let now = &engine.exchanges.all[place];
        let number = self.live.entry(now.key()).or_default();
        let then = self.recorded.get(&now.key()).and_then(|places| places.get(*number)).copied();
        *number += 1;
        self.counterpart.resize(place, None);
        self.counterpart.push(then);
        match then.map(|then| &script.exchanges.all[then]) {
            Some(then) if then.asks_like(now) => {}
            Some(then) => {
                let texts = [then, now].map(|one| asked(one, symbols));
                self.differs(now.asked, "request", "another request comes".into(), texts, engine, symbols);
            }
            None if is_pagers(now.ring) => self.other_frames += u64::from(now.ring == Ring::Paging),
            None => {
                let texts = ["no request".to_owned(), asked(now, symbols)];
                self.differs(
                    now.asked,
                    "request",
                    "a request comes that was not recorded".into(),
                    texts,
                    engine,
                    symbols,
                );
            }
        }
    }

    fn answered(&mut self, place: usize, engine: &Engine, script: &Script, symbols: &Symbols) {
        let now = &engine.exchanges.all[place];
        let then = self.counterpart.get(place).copied().flatten().map(|then| &script.exchanges.all[then]);
        if let (Some(Exchange { answer: Some(then), .. }), Some(is)) = (then, &now.answer)
            && then.left != is.left
        {
            let what = format!("the answer to: {}", asked(now, symbols));
            let texts = [then, is].map(|answer| in_words(answer, then.left.monitors != is.left.monitors));
            self.differs(is.step, "answer", what, texts, engine, symbols);
        }
    }

    /// Which frames a pager evicts is its own matter, but where the recorded one did as it was told and nothing else.
    fn evicted(&mut self, gfn: Gfn, engine: &Engine, script: &Script, symbols: &Symbols) {
        if script.evicts_by_order && !engine.ordered.contains(gfn) {
            let texts = ["frames that were ordered to be evicted, and no others".to_owned(), frame(gfn, symbols)];
            let what = "a frame is evicted that nobody ordered to be".to_owned();
            self.differs(engine.steps, "eviction", what, texts, engine, symbols);
        }
    }

    /// The run is over: what did not come, and what is left behind.
    pub fn end(&mut self, engine: &Engine, script: &Script, symbols: &Symbols) {
        let step = engine.steps;
        let missing = self.recorded.iter().filter_map(|(key, places)| {
            let came = self.live.get(key).copied().unwrap_or(0);
            places.get(came).copied()
        });
        let missing = missing.filter(|place| !is_pagers(script.exchanges.all[*place].ring)).min();
        if let Some(place) = missing {
            let texts = [asked(&script.exchanges.all[place], symbols), "no request".into()];
            self.differs(step, "request", "a request that was recorded never came".into(), texts, engine, symbols);
        }
        self.end_of_paging(engine, script, symbols);
        let left = restricted(&script.header, &engine.domain);
        let both = script.restricted.keys().chain(left.keys());
        let other = both.filter(|gfn| script.restricted.get(gfn) != left.get(gfn)).min();
        if let Some(gfn) = other.copied() {
            let rights = |of: &std::collections::BTreeMap<Gfn, mem_event::AccessType>| {
                of.get(&gfn).map_or_else(|| "rwx".to_owned(), ToString::to_string)
            };
            let what = format!("the rights of {} at the end", frame(gfn, symbols));
            self.differs(step, "rights", what, [rights(&script.restricted), rights(&left)], engine, symbols);
        }
    }

    /// Which frames a pager evicts is its own matter; that it evicts none where the recorded one did has shown nothing of it.
    fn end_of_paging(&mut self, engine: &Engine, script: &Script, symbols: &Symbols) {
        let count = |of: &Exchanges| of.all.iter().filter(|exchange| exchange.ring == Ring::Paging).count();
        let (then, now) = (count(&script.exchanges), count(&engine.exchanges));
        if then > 0 && now == 0 {
            let texts = [
                format!("{then} requests on the paging ring"),
                "none: the consumer evicted nothing that was touched".into(),
            ];
            self.differs(engine.steps, "request", "no page-in came at all".into(), texts, engine, symbols);
        }
    }

    fn differs(
        &mut self,
        step: u64,
        kind: &'static str,
        what: String,
        recorded_and_now: [String; 2],
        engine: &Engine,
        symbols: &Symbols,
    ) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(Difference { step, kind, what, recorded_and_now, before: engine.recent.table(symbols) });
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { step, what, recorded_and_now: [then, now], before, .. } = self;
        write!(
            f,
            "the steps before it, and itself:\n{before}\nstep {step} differs: {what}\n- {then}\n+ {now}\n- recorded, + now\n"
        )
    }
}

fn in_words(answer: &Answer, with_monitors: bool) -> String {
    let left = &answer.left;
    let mut text = format!("flags {}", if left.flags.0 == 0 { "none".into() } else { left.flags.to_string() });
    if let Some(access) = left.access {
        text += &format!(", the frame has the rights {access}");
    }
    if with_monitors {
        let modes = CpuEventKind::ALL.iter().zip(left.monitors.0).map(|(kind, mode)| format!("{kind} {mode}"));
        text += &format!(", monitors {}", modes.collect::<Vec<_>>().join(" "));
        text += if left.monitors.1 { ", the vCPU is stepped" } else { ", the vCPU is not stepped" };
    }
    text
}
