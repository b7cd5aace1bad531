//! The shortest sequence.
//!
//! Inputs are left out, and answers out of those that take some, as long as the last step still shows the same. For a broken
//! invariant that is the same sentence (numbers aside). For a difference it is the same answer of the engine, as far as it concerns
//! the vCPUs, frames and rings of what differs, out of the same state of theirs and into the same: so what was recorded still is what
//! is right. The state after is needed where an effect is missing: a step that does nothing lacks it, too.

use crate::trace::progress::Progress;
use crate::trace::row::About;
use mem_event::domain::Domain;
use mem_event::taken::{self, Taken};
use mem_event::trace::{Engine, Failure, RecordedConsumers, Tape};
use mem_event::{Effect, Effects, Gfn, Input, Outcome, Ring, VcpuId};
use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An engine that can be looked into.
pub trait Subject: Engine {
    /// What is looked into.
    fn domain(&self) -> &Domain;
}

impl Subject for Domain {
    fn domain(&self) -> &Domain {
        self
    }
}

/// An input with what it took from ring pages, record by record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenInput {
    /// The input.
    pub input: Input,
    /// The records of [`mem_event::taken`].
    pub taken: Vec<Vec<u8>>,
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The last step's answer is this, and another one was recorded.
    Difference(Box<Differs>),
    /// After the last step this does not hold; a sentence without its numbers.
    Invariant(String),
    /// The last step does not return: an assertion of the engine fails.
    Panic,
}

/// A difference, as far as it can be told apart from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differs {
    concerned: Concerned,
    now: Answer,
    /// The recorded outcome, where it is another one.
    pub outcome: Option<String>,
    /// Effects that were recorded and do not come.
    pub missing: Vec<Effect>,
    /// Effects that come and were not recorded.
    pub extra: Vec<Effect>,
}

/// What an engine does in one step, as far as it concerns some.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    before: Vec<String>,
    outcome: String,
    effects: Vec<String>,
    after: Vec<String>,
}

/// The shortest sequence, and what it shows.
#[derive(Clone, Debug)]
pub struct Minimal {
    /// The inputs.
    pub inputs: Vec<TakenInput>,
    /// What the last of them shows.
    pub shown: Shown,
    /// The step of the trace that showed it.
    pub step: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Concerned {
    vcpus: Vec<VcpuId>,
    frames: Vec<Gfn>,
    rings: Vec<Ring>,
}

/// The shortest sequence for a replay's failure, or without one for the first invariant that breaks; `None` where nothing is shown.
///
/// # Errors
/// The trace is damaged before that.
pub fn of_failure<S: Subject, R: Read + Seek>(
    tape: &mut Tape<R>,
    failure: Option<&Failure>,
    fresh: &dyn Fn() -> Result<S, String>,
) -> anyhow::Result<Option<Minimal>> {
    let last = failure.map_or(tape.len(), Failure::step);
    let mut inputs = inputs(tape, last)?;
    let (shown, step) = match failure {
        Some(Failure::Difference(difference)) => {
            let recorded = (&difference.recorded.outcome, &difference.recorded.effects);
            let now = (&difference.outcome, &difference.effects);
            match Differs::new(&inputs, recorded, now, fresh) {
                Some(differs) => (Shown::Difference(Box::new(differs)), last),
                None => return Ok(None),
            }
        }
        _ => match first_broken(&inputs, fresh) {
            Some((shown, step)) => (shown, step),
            None => return Ok(None),
        },
    };
    inputs.truncate(usize::try_from(step).unwrap_or(usize::MAX));
    let progress = Progress::of_tries();
    let inputs = shortest(inputs, &|inputs| {
        progress.tried();
        let shows = shown.is_shown_by(inputs, fresh);
        if shows {
            progress.best(format!("{} inputs at best", inputs.len()));
        }
        shows
    });
    progress.end();
    Ok(Some(Minimal { inputs, shown, step }))
}

/// The inputs of the first steps of a trace.
///
/// # Errors
/// The trace is damaged before that.
pub fn inputs<R: Read + Seek>(tape: &mut Tape<R>, last: u64) -> anyhow::Result<Vec<TakenInput>> {
    let mut inputs = Vec::new();
    for number in 1..=last {
        let step = tape.step(number)?;
        let taken = taken::records(&step.effects.taken).map(record).collect();
        inputs.push(TakenInput { input: step.input.clone(), taken });
    }
    Ok(inputs)
}

/// A record as bytes again.
fn record(record: Taken<'_>) -> Vec<u8> {
    let (ring, kind, content) = match &record {
        Taken::Slot(ring, bytes) => (*ring, 0, bytes.to_vec()),
        Taken::Broken(ring, index) => (*ring, 1, index.to_le_bytes().to_vec()),
    };
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&[ring as u8, kind][..], &length, &content].concat()
}

/// Runs a sequence: the answer to the last input, and the engine; `None` where it cannot come from a run.
fn run<S: Subject>(
    inputs: &[TakenInput],
    concerned: &Concerned,
    fresh: &dyn Fn() -> Result<S, String>,
) -> Option<(Answer, S)> {
    let (mut engine, mut consumers, mut effects) = (fresh().ok()?, RecordedConsumers::default(), Effects::default());
    let (last, others) = inputs.split_last()?;
    for told in others {
        effects.clear();
        let _ = consumers.step(&mut engine, &told.input, &told.taken.concat(), &mut effects).ok()?;
    }
    let before = concerned.standing(engine.domain());
    effects.clear();
    let outcome = consumers.step(&mut engine, &last.input, &last.taken.concat(), &mut effects).ok()?;
    let (outcome, effects) = (format!("{outcome:?}"), concerned.effects(&effects));
    Some((Answer { before, outcome, effects, after: concerned.standing(engine.domain()) }, engine))
}

impl Differs {
    fn new<S: Subject>(
        inputs: &[TakenInput],
        recorded: (&Outcome, &Effects),
        now: (&Outcome, &Effects),
        fresh: &dyn Fn() -> Result<S, String>,
    ) -> Option<Differs> {
        let without = |list: &[Effect], other: &[Effect]| -> Vec<Effect> {
            list.iter().filter(|effect| !other.contains(effect)).cloned().collect()
        };
        let missing = without(&recorded.1.list, &now.1.list);
        let extra = without(&now.1.list, &recorded.1.list);
        let mut concerned = Concerned::default();
        missing.iter().chain(&extra).for_each(|effect| concerned.add(effect));
        let about = About::of(&inputs.last()?.input);
        concerned.vcpus.extend(about.vcpu.map(VcpuId));
        concerned.frames.extend(about.gfn);
        concerned.rings.extend(about.ring);
        let outcome = (recorded.0 != now.0).then(|| format!("{:?}", recorded.0));
        let (now, _) = run(inputs, &concerned, fresh)?;
        Some(Differs { concerned, now, outcome, missing, extra })
    }
}

impl Shown {
    fn is_shown_by<S: Subject>(&self, inputs: &[TakenInput], fresh: &dyn Fn() -> Result<S, String>) -> bool {
        let none = Concerned::default();
        let concerned = if let Shown::Difference(differs) = self { &differs.concerned } else { &none };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let (now, engine) = run(inputs, concerned, fresh)?;
            Some((now, engine.domain().check_invariants().err().map(|why| shape(&why))))
        }));
        match (self, ran) {
            (Shown::Panic, ran) => ran.is_err(),
            (Shown::Difference(differs), Ok(Some((now, _)))) => differs.now == now,
            (Shown::Invariant(sentence), Ok(Some((_, broken)))) => broken.as_ref() == Some(sentence),
            _ => false,
        }
    }
}

/// The first step after which an invariant does not hold, or in which an assertion fails.
fn first_broken<S: Subject>(inputs: &[TakenInput], fresh: &dyn Fn() -> Result<S, String>) -> Option<(Shown, u64)> {
    let (mut engine, mut consumers, mut effects) = (fresh().ok()?, RecordedConsumers::default(), Effects::default());
    for (number, told) in (1..).zip(inputs) {
        effects.clear();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            consumers.step(&mut engine, &told.input, &told.taken.concat(), &mut effects).map(|_| ())
        }));
        match ran {
            Err(_) => return Some((Shown::Panic, number)),
            Ok(Err(_)) => return None,
            Ok(Ok(())) => {}
        }
        if let Err(why) = engine.domain().check_invariants() {
            return Some((Shown::Invariant(shape(&why)), number));
        }
    }
    None
}

fn shape(sentence: &str) -> String {
    sentence.chars().filter(|letter| !letter.is_ascii_digit()).collect()
}

impl Concerned {
    fn add(&mut self, effect: &Effect) {
        match effect {
            Effect::Requested { ring, request, .. } => {
                self.vcpus.push(request.vcpu);
                self.frames.extend(request.frame());
                self.rings.push(*ring);
            }
            Effect::Lost { ring, request, .. } => {
                self.vcpus.push(request.vcpu);
                self.rings.push(*ring);
            }
            Effect::Answered { ring, response, .. } => {
                self.vcpus.push(VcpuId(response.vcpu));
                self.frames.push(Gfn(response.subject()));
                self.rings.push(*ring);
            }
            Effect::Wake(vcpu) => self.vcpus.push(*vcpu),
            Effect::Notify(ring) | Effect::Closed(ring) | Effect::Broken(ring, _) => self.rings.push(*ring),
            Effect::Unmap(gfn) | Effect::Map(gfn) | Effect::Punch(gfn) | Effect::Fill(gfn) | Effect::Zero(gfn) => {
                self.frames.push(*gfn);
            }
            Effect::Tighten { first, .. } => self.frames.push(*first),
            _ => {}
        }
    }

    fn has(&self, effect: &Effect) -> bool {
        let mut of_effect = Concerned::default();
        of_effect.add(effect);
        let Concerned { vcpus, frames, rings } = of_effect;
        let slots = matches!(effect, Effect::Requested { .. } | Effect::Answered { .. });
        vcpus.iter().any(|vcpu| self.vcpus.contains(vcpu))
            || frames.iter().any(|gfn| self.frames.contains(gfn))
            || !slots && rings.iter().any(|ring| self.rings.contains(ring))
    }

    /// The effects that concern these, without the numbers of slots.
    fn effects(&self, effects: &Effects) -> Vec<String> {
        let text = |effect: &Effect| match effect {
            Effect::Requested { ring, request, .. } => format!("{ring} {request:?}"),
            Effect::Answered { ring, response, .. } => format!("{ring} {response:?}"),
            other => format!("{other:?}"),
        };
        effects.list.iter().filter(|effect| self.has(effect)).map(text).collect()
    }

    /// How these stand.
    fn standing(&self, domain: &Domain) -> Vec<String> {
        let vcpus = self.vcpus.iter().map(|vcpu| format!("{:?}", domain.vcpu_view(*vcpu)));
        let frames = self
            .frames
            .iter()
            .map(|gfn| format!("{:?} {:?} {}", domain.p2m_type(*gfn), domain.access_type(*gfn), domain.is_held(*gfn)));
        let rings = Ring::ALL.into_iter().filter(|ring| self.rings.contains(ring)).map(|ring| {
            let view = domain.ring(ring);
            let mut out = view.outstanding;
            out.retain(|request| {
                self.vcpus.contains(&request.vcpu) || request.frame().is_some_and(|gfn| self.frames.contains(&gfn))
            });
            format!("{:?} {:?} {:?} full {} {out:?}", view.phase, view.policy, view.layout, view.free == 0)
        });
        vcpus.chain(frames).chain(rings).collect()
    }
}

/// Leaves out what can be, in ever smaller parts, until nothing more can; the last input stays.
fn shortest(mut inputs: Vec<TakenInput>, still: &dyn Fn(&[TakenInput]) -> bool) -> Vec<TakenInput> {
    loop {
        let size = size(&inputs);
        inputs = fewer(inputs, 1, still);
        for at in 0..inputs.len() {
            let records = std::mem::take(&mut inputs[at].taken);
            let shown = |records: &[Vec<u8>]| {
                let mut with = inputs.clone();
                with[at].taken = records.to_vec();
                still(&with)
            };
            inputs[at].taken = fewer(records, 0, &shown);
        }
        if self::size(&inputs) == size {
            match without_two(&inputs, still) {
                Some(fewer) => inputs = fewer,
                None => return inputs,
            }
        }
    }
}

/// Above so many inputs no two are tried together: that takes the square of their number.
const FEW: usize = 100;

/// Leaves out an input with a later one, or with an answer that a later one takes: a request and what was said to it can only go
/// together. `None` where no two can go.
fn without_two(inputs: &[TakenInput], still: &dyn Fn(&[TakenInput]) -> bool) -> Option<Vec<TakenInput>> {
    let count = if inputs.len() <= FEW { inputs.len() } else { 0 };
    let pairs = (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second)));
    pairs.flat_map(|(first, second)| without_this_and(inputs, first, second)).find(|rest| still(rest))
}

/// The sequences without the first, and without the second or one of its answers. The last input stays.
fn without_this_and(inputs: &[TakenInput], first: usize, second: usize) -> impl Iterator<Item = Vec<TakenInput>> {
    let without = |change: &dyn Fn(&mut Vec<TakenInput>)| {
        let mut rest = inputs.to_vec();
        change(&mut rest);
        rest.remove(first);
        rest
    };
    let input = (second + 1 < inputs.len()).then(|| without(&|rest| drop(rest.remove(second))));
    let answers =
        (0..inputs[second].taken.len()).map(|answer| without(&|rest| drop(rest[second].taken.remove(answer))));
    input.into_iter().chain(answers.collect::<Vec<_>>())
}

fn size(inputs: &[TakenInput]) -> usize {
    inputs.iter().map(|told| 1 + told.taken.len()).sum()
}

/// A list without all that can be left out; its last `keep` elements stay.
#[must_use]
pub fn fewer<T: Clone>(mut list: Vec<T>, keep: usize, still: &dyn Fn(&[T]) -> bool) -> Vec<T> {
    let mut part = list.len().saturating_sub(keep);
    while part > 0 {
        let mut at = 0;
        while at < list.len().saturating_sub(keep) {
            let end = (at + part).min(list.len() - keep);
            let rest = [&list[..at], &list[end..]].concat();
            if still(&rest) {
                list = rest;
            } else {
                at = end;
            }
        }
        part /= 2;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::fewer;

    #[test]
    fn what_is_not_needed_is_left_out() {
        let still = |list: &[u32]| list.contains(&17) && list.contains(&80);
        assert_eq!(fewer((0..100).collect(), 1, &still), [17, 80, 99]);
        assert_eq!(fewer(vec![1, 2], 1, &|_| false), [1, 2]);
    }
}
