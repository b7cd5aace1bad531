//! The live engine of a trial: a step at a time, with its effects on a guest that does not run.

use super::contents::{Contents, Wrong as WrongContent};
use super::exchange::{Exchanges, Wrong};
use super::fault::Fault;
use super::ordered::Ordered;
use super::script::Script;
use crate::trace::difference::Recent;
use anyhow::Context as _;
use mem_event::trace::{Context, RecordedConsumers, Remark, Step, Writer};
use mem_event::{Control, Domain, Effect, Effects, Gfn, Input, Outcome, PAGE_SIZE, Ring, VcpuId, With};
use mem_event_server::{EventChannel, Subscribers};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The engine with what a step of it needs.
pub struct Engine {
    /// The domain.
    pub domain: Domain,
    /// What its frames hold.
    pub contents: Contents,
    /// The requests on the rings under test.
    pub exchanges: Exchanges,
    /// Steps so far.
    pub steps: u64,
    /// vCPUs that were woken and have not made their input again.
    pub woken: Vec<VcpuId>,
    /// Devices may find room.
    pub foreign_may_retry: bool,
    /// The first thing that is wrong with the consumer, whatever was recorded.
    pub fault: Option<Fault>,
    /// The last steps, for reports.
    pub recent: Recent,
    /// What is said once.
    pub notes: BTreeMap<&'static str, String>,
    /// Requests that were put and answers that were taken since somebody looked, by their places.
    pub news: Vec<News>,
    /// Rings whose consumer is to be signalled.
    pub signals: Vec<Ring>,
    /// Steps by which somebody came further: no refusal, no question.
    pub useful: u64,
    /// The connection that causes the step at hand; 0 for none.
    pub caller: u32,
    /// What the pager was ordered to evict.
    pub ordered: Ordered,
    /// Who hears notices.
    pub subscribers: Subscribers,
    rings: Vec<Ring>,
    channels: [Option<Arc<EventChannel>>; 3],
    others: RecordedConsumers,
    trace: Option<Writer>,
    effects: Effects,
    begun: Instant,
}

/// What became of a request in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was put.
    Put(usize),
    /// It was answered.
    Answered(usize),
    /// No request: this frame was evicted.
    Evicted(Gfn),
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl Engine {
    /// A fresh engine for a consumer of these rings, recorded into a file if one is named.
    ///
    /// # Errors
    /// The recording's domain cannot be, or the file cannot be made.
    pub fn new(script: &Script, rings: &[Ring], trace: Option<&Path>) -> anyhow::Result<Engine> {
        let domain = Domain::new(script.header.config.clone()).map_err(anyhow::Error::msg)?;
        let create = |path: &Path| {
            Writer::create(path, &script.header).with_context(|| format!("cannot write the trace {}", path.display()))
        };
        let mut engine = Engine {
            domain,
            contents: Contents::default(),
            exchanges: Exchanges::default(),
            steps: 0,
            woken: Vec::new(),
            foreign_may_retry: false,
            fault: None,
            recent: Recent::with_the_one_that_differs(),
            notes: BTreeMap::new(),
            news: Vec::new(),
            signals: Vec::new(),
            useful: 0,
            caller: 0,
            ordered: Ordered::default(),
            subscribers: Subscribers::default(),
            rings: rings.to_vec(),
            channels: [None, None, None],
            others: RecordedConsumers::default(),
            trace: trace.map(create).transpose()?,
            effects: Effects::default(),
            begun: Instant::now(),
        };
        for input in &script.before {
            let _ = engine.step(input);
        }
        Ok(engine)
    }

    /// One step of the guest's or the toolstack's.
    pub fn step(&mut self, input: &Input) -> Outcome {
        self.step_with(input, With::NOTHING, None)
    }

    /// One step, with a page for a ring that it enables and the content of a page-in.
    pub fn step_with(&mut self, input: &Input, with: With<'_>, content: Option<&[u8]>) -> Outcome {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        let outcome = self.domain.apply(input, with, &mut effects);
        if let Some(remark) = Remark::of_registers(input, with, &effects.list) {
            self.remark(|| remark);
        }
        self.done(input, &outcome, effects, content);
        outcome
    }

    /// A step of a ring that is not under test, with what was recorded of it; nothing where that is impossible by now.
    pub fn step_of_others(&mut self, input: &Input, taken: &[u8]) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        match self.others.step(&mut self.domain, input, taken, &mut effects) {
            Ok(outcome) => self.done(input, &outcome, effects, None),
            Err(why) => drop(self.notes.entry("others").or_insert(why)),
        }
    }

    fn done(&mut self, input: &Input, outcome: &Outcome, effects: Effects, content: Option<&[u8]>) {
        self.steps += 1;
        let asks = matches!(input, Input::Control(Control::GetAccess { .. }));
        self.useful += u64::from(!asks && !matches!(outcome, Outcome::Refused(..) | Outcome::Retry(_)));
        let (time, connection) = (self.time(), self.caller);
        if let Some(trace) = &mut self.trace {
            trace.record(Context { time, code: &[], connection }, input, outcome, &effects);
            if trace.wants_state() {
                trace.keep(&self.domain);
            }
        }
        let step = Step { time, code: Vec::new(), connection, input: input.clone(), outcome: outcome.clone(), effects };
        self.recent.step(self.steps, &step);
        for effect in &step.effects.list {
            self.carry_out(input, effect, content);
        }
        self.look(&step);
        self.effects = step.effects;
    }

    fn carry_out(&mut self, input: &Input, effect: &Effect, content: Option<&[u8]>) {
        match effect {
            Effect::Notify(ring) => self.signals.push(*ring),
            Effect::Wake(vcpu) => self.woken.push(*vcpu),
            Effect::RetryForeign => self.foreign_may_retry = true,
            Effect::Unmap(gfn) if matches!(input, Input::Control(Control::Nominate { .. })) => {
                self.contents.nominated(*gfn);
            }
            Effect::Punch(gfn) if matches!(input, Input::Control(Control::Evict { .. })) => {
                self.contents.evicted(*gfn, self.steps);
                self.news.push(News::Evicted(*gfn));
            }
            Effect::Zero(gfn) => self.contents.zeroed(*gfn),
            Effect::Fill(gfn) => match content.and_then(|content| content.try_into().ok()) {
                None => self.contents.restored(*gfn),
                Some(content) => {
                    let content: &[u8; PAGE_SIZE] = content;
                    if let Err(wrong) = self.contents.loaded(*gfn, content) {
                        let WrongContent { evicted, offset, is_of } = wrong;
                        self.fail(Fault::WrongContent { gfn: *gfn, step: self.steps, evicted, offset, is_of });
                    }
                }
            },
            Effect::Share { source, client } => self.contents.shared(*source, *client),
            Effect::Closed(ring) => self.channels[ring.index()] = None,
            Effect::Broken(ring, why) => {
                self.channels[ring.index()] = None;
                self.fail(Fault::Broken { ring: *ring, why: why.clone(), step: self.steps });
            }
            Effect::Crash(why) => self.fail(Fault::Crashed { why: why.clone(), step: self.steps }),
            _ => {}
        }
    }

    /// Nanoseconds since the guest started.
    fn time(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The guest starts: time counts from here.
    pub fn start(&mut self) {
        self.begun = Instant::now();
    }

    /// Something between the steps, for the trace.
    pub fn remark(&mut self, remark: impl FnOnce() -> Remark) {
        let time = self.time();
        if let Some(trace) = &mut self.trace {
            trace.remark(time, &remark());
        }
    }

    /// Keeps the exchanges of the rings under test.
    fn look(&mut self, step: &Step) {
        let of_rings = |effect: &&Effect| match effect {
            Effect::Requested { ring, .. } | Effect::Answered { ring, .. } => self.rings.contains(ring),
            _ => false,
        };
        let effects: Vec<Effect> = step.effects.list.iter().filter(of_rings).cloned().collect();
        if effects.is_empty() {
            return;
        }
        let (put, answered, wrong) = self.exchanges.step(self.steps, &effects, &self.domain);
        self.news.extend(put.into_iter().map(News::Put));
        self.news.extend(answered.into_iter().map(News::Answered));
        if let Some(wrong) = wrong {
            let exchange = |place: usize| self.exchanges.all[place].clone();
            let step = self.steps;
            self.fail(match wrong {
                Wrong::ForNone { ring, vcpu, subject, again } => {
                    Fault::ForNone { ring, vcpu, subject, step, again: again.map(exchange) }
                }
                Wrong::LeavesWaiting(place, flags) => Fault::LeavesWaiting { exchange: exchange(place), step, flags },
                Wrong::Version(place, version) => Fault::Version { exchange: exchange(place), step, version },
                Wrong::NotLoaded(place) => Fault::NotLoaded { exchange: exchange(place), step },
            });
        }
    }

    /// The first fault counts: what follows may come of it.
    pub fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Says something once.
    pub fn note(&mut self, about: &'static str, text: impl FnOnce() -> String) {
        self.notes.entry(about).or_insert_with(text);
    }

    /// The engine's end of a ring's event channel, while there is a consumer.
    pub fn channel(&self, ring: Ring) -> Option<&Arc<EventChannel>> {
        self.channels[ring.index()].as_ref()
    }

    /// A ring has a consumer from now on, or none.
    pub fn set_channel(&mut self, ring: Ring, channel: Option<Arc<EventChannel>>) {
        self.channels[ring.index()] = channel;
    }

    /// The trace ends here, in order.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end_trace(&mut self) -> Result<(), String> {
        self.trace.take().map_or(Ok(()), Writer::finish)
    }
}
