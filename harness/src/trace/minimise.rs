//! `minimise`: the shortest sequence of inputs that still shows a trace's difference, or an invariant that breaks.
//!
//! Inputs are left out, and answers out of those that take some, as long as the last step still shows the same. For a broken
//! invariant that is the same sentence (numbers aside). For a difference it is the same answer of the engine, as far as it concerns
//! the vCPUs, frames and rings of what differs, out of the same state of theirs and into the same: so what was recorded still is what
//! is right. The state after is needed where an effect is missing: a step that does nothing lacks it, too.

use super::row::{About, kind};
use super::{not_a_trace, seekable};
use crate::output::print;
use crate::refusal::Refusal;
use clap::Args;
use mem_event::domain::Domain;
use mem_event::taken::{self, Taken};
use mem_event::trace::{Consumers, End, Engine, Failure, Header, Reader, Tape, replay};
use mem_event::{DomainConfig, Effect, Effects, Gfn, Input, Outcome, Ring, VcpuId};
use std::io::{BufReader, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// `minimise`
#[derive(Clone, Debug, Args)]
pub struct Minimise {
    /// The trace.
    pub trace: PathBuf,
}

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
pub struct Told {
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
    pub inputs: Vec<Told>,
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

/// `minimise`; 0 with a sequence, 5 where the trace shows nothing.
///
/// # Errors
/// No trace, a damaged one, an output that cannot be written.
pub fn minimise(arguments: &Minimise) -> anyhow::Result<u8> {
    let mut file = seekable(&arguments.trace)?;
    let refused = |end: End| not_a_trace(&arguments.trace, &end);
    // Each seeks before it reads.
    let mut tape = Tape::new(BufReader::new(file.try_clone()?)).map_err(refused)?;
    file.rewind()?;
    let reader = Reader::new(BufReader::new(file)).map_err(refused)?;
    let config = tape.header().config.clone();
    let fresh = || Domain::new(config.clone());
    let mut engine = fresh().map_err(|why| Refusal::usage(why, "name a trace of a run"))?;
    let hook = std::panic::take_hook();
    // What the engine says of its assertions would be said at every attempt.
    std::panic::set_hook(Box::new(|_| ()));
    let failed = catch_unwind(AssertUnwindSafe(|| replay(reader, &mut engine, |_, _| ()).err()));
    let minimal = match failed {
        Ok(failure) => of_failure(&mut tape, failure.as_ref(), &fresh),
        Err(_) => of_failure(&mut tape, None, &fresh),
    };
    std::panic::set_hook(hook);
    match minimal? {
        None => {
            print("the trace replays without a difference, and every invariant holds after each step\n")?;
            Ok(5)
        }
        Some(minimal) => {
            print(&as_test(tape.header(), &minimal))?;
            Ok(0)
        }
    }
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
    let mut inputs = Vec::new();
    for number in 1..=last {
        let step = tape.step(number)?;
        let taken = taken::records(&step.effects.taken).map(record).collect();
        inputs.push(Told { input: step.input.clone(), taken });
    }
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
    let inputs = shortest(inputs, &|inputs| shown.is_shown_by(inputs, fresh));
    Ok(Some(Minimal { inputs, shown, step }))
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
    inputs: &[Told],
    concerned: &Concerned,
    fresh: &dyn Fn() -> Result<S, String>,
) -> Option<(Answer, S)> {
    let (mut engine, mut consumers, mut effects) = (fresh().ok()?, Consumers::default(), Effects::default());
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
        inputs: &[Told],
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
    fn is_shown_by<S: Subject>(&self, inputs: &[Told], fresh: &dyn Fn() -> Result<S, String>) -> bool {
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
fn first_broken<S: Subject>(inputs: &[Told], fresh: &dyn Fn() -> Result<S, String>) -> Option<(Shown, u64)> {
    let (mut engine, mut consumers, mut effects) = (fresh().ok()?, Consumers::default(), Effects::default());
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
                self.frames.push(request.gfn);
                self.rings.push(*ring);
            }
            Effect::Answered { ring, response, .. } => {
                self.vcpus.push(VcpuId(response.vcpu));
                self.frames.push(response.gfn);
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
            out.retain(|request| self.vcpus.contains(&request.vcpu) || self.frames.contains(&request.gfn));
            format!("{:?} {:?} {:?} full {} {out:?}", view.standing, view.policy, view.layout, view.free == 0)
        });
        vcpus.chain(frames).chain(rings).collect()
    }
}

/// Leaves out what can be, in ever smaller parts, until nothing more can; the last input stays.
fn shortest(mut inputs: Vec<Told>, still: &dyn Fn(&[Told]) -> bool) -> Vec<Told> {
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
fn without_two(inputs: &[Told], still: &dyn Fn(&[Told]) -> bool) -> Option<Vec<Told>> {
    let count = if inputs.len() <= FEW { inputs.len() } else { 0 };
    let pairs = (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second)));
    pairs.flat_map(|(first, second)| without_this_and(inputs, first, second)).find(|rest| still(rest))
}

/// The sequences without the first, and without the second or one of its answers. The last input stays.
fn without_this_and(inputs: &[Told], first: usize, second: usize) -> impl Iterator<Item = Vec<Told>> {
    let without = |change: &dyn Fn(&mut Vec<Told>)| {
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

fn size(inputs: &[Told]) -> usize {
    inputs.iter().map(|told| 1 + told.taken.len()).sum()
}

/// A list without all that can be left out; its last `keep` elements stay.
fn fewer<T: Clone>(mut list: Vec<T>, keep: usize, still: &dyn Fn(&[T]) -> bool) -> Vec<T> {
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

/// What the test may have to name, besides what it always does.
const NAMES: [&str; 14] = [
    "Access",
    "AccessSource",
    "AccessType",
    "Control",
    "CpuEvent",
    "CpuEventKind",
    "Gfn",
    "Gla",
    "Layout",
    "MonitorMode",
    "NoConsumer",
    "Rights",
    "Ring",
    "VcpuId",
];

/// The sequence as a test for `mem-event/tests/regressions.rs`.
#[must_use]
pub fn as_test(header: &Header, minimal: &Minimal) -> String {
    let Minimal { inputs, shown, step } = minimal;
    let name: String =
        header.guest.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let last = inputs.last().map(|told| kind(&told.input)).unwrap_or_default();
    let sources: Vec<String> = inputs.iter().map(|told| source(&told.input)).collect();
    let config = config(&header.config);
    let is_named = |name: &&str| {
        let named = |text: &str| text.contains(&format!("{name}(")) || text.contains(&format!("{name}::"));
        named(&config) || sources.iter().any(|text| named(text) || text.contains(&format!("{name} {{")))
    };
    let names: Vec<&str> = NAMES.into_iter().filter(is_named).collect();
    let mut text = format!(
        "/// Minimised from a trace of {}, whose step {step} ({last}) shows it.\n#[test]\n\
         fn minimised_from_{name}_step_{step}() {{\n    use mem_event::trace::Consumers;\n    \
         use mem_event::{{Domain, DomainConfig, Effects, Input, {}}};\n    \
         let config = {config};\n    let inputs: &[(Input, &[u8])] = &[\n",
        header.guest,
        names.join(", "),
    );
    for (told, source) in inputs.iter().zip(&sources) {
        let bytes: Vec<String> = told.taken.concat().iter().map(u8::to_string).collect();
        text += &format!("        ({}, &[{}]),\n", source, bytes.join(", "));
    }
    text += "    ];\n    let (mut domain, mut consumers) = (Domain::new(config).unwrap(), Consumers::default());\n    \
             let (mut effects, mut outcome) = (Effects::default(), None);\n    for (input, taken) in inputs {\n        \
             effects.clear();\n        outcome = Some(consumers.step(&mut domain, input, taken, &mut effects).unwrap());\n        \
             domain.check_invariants().unwrap();\n    }\n    let said = format!(\"{outcome:?} {:?}\", effects.list);\n";
    if let Shown::Difference(differs) = shown {
        let wanted = differs.missing.iter().map(|effect| (true, in_words(effect)));
        let unwanted = differs.extra.iter().map(|effect| (false, in_words(effect)));
        let outcome = differs.outcome.iter().map(|outcome| (true, format!("Some({outcome})")));
        for (is, part) in outcome.chain(wanted).chain(unwanted) {
            let not = if is { "" } else { "!" };
            text += &format!("    assert!({not}said.contains({part:?}), \"{{said}}\");\n");
        }
    } else {
        text += "    assert!(!said.is_empty());\n";
    }
    text + "}\n"
}

/// An effect as its debug text names it, without a slot's number, which depends on what was left out.
fn in_words(effect: &Effect) -> String {
    match effect {
        Effect::Requested { request, .. } => format!("request: {request:?}"),
        Effect::Answered { response, .. } => format!("response: {response:?}"),
        other => format!("{other:?}"),
    }
}

fn config(config: &DomainConfig) -> String {
    // The RAM stays as it is: frames are numbers that the inputs name.
    format!("{config:?}").replace("ram: [", "ram: vec![")
}

/// An input as the source spells it, from its debug text, which leaves out the names of enums.
fn source(input: &Input) -> String {
    let text = format!("Input::{input:?}").replace("Input::Control(", "Input::Control(Control::");
    let mut text = rights(&text);
    for (field, name) in [
        ("ring: ", "Ring"),
        ("layout: ", "Layout"),
        ("policy: ", "NoConsumer"),
        ("source: ", "AccessSource"),
        ("kind: ", "CpuEventKind"),
        ("mode: ", "MonitorMode"),
        ("access: ", "AccessType"),
    ] {
        let mut parts = text.split(field);
        let first = parts.next().unwrap_or_default().to_owned();
        text = parts.fold(first, |text, part| {
            let is_enum = part.starts_with(char::is_uppercase) && !part.starts_with("Access {");
            if is_enum { format!("{text}{field}{name}::{part}") } else { format!("{text}{field}{part}") }
        });
    }
    text
}

/// `Rights(r-x)` as `Rights::from_bits(5)`.
fn rights(text: &str) -> String {
    let mut parts = text.split("Rights(");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (letters, rest) = part.split_at(part.len().min(3));
        let bits: u8 = letters.bytes().zip([1, 2, 4]).map(|(letter, bit)| if letter == b'-' { 0 } else { bit }).sum();
        format!("{text}Rights::from_bits({bits}{rest}")
    })
}

#[cfg(test)]
mod tests {
    use super::{fewer, source};
    use mem_event::{Access, AccessSource, AccessType, Control, Gfn, Input, Layout, NoConsumer, Rights, Ring, VcpuId};

    #[test]
    fn what_is_not_needed_is_left_out() {
        let still = |list: &[u32]| list.contains(&17) && list.contains(&80);
        assert_eq!(fewer((0..100).collect(), 1, &still), [17, 80, 99]);
        assert_eq!(fewer(vec![1, 2], 1, &|_| false), [1, 2]);
    }

    #[test]
    fn inputs_are_spelt_as_the_source_spells_them() {
        let access = Access {
            gfn: Gfn(5),
            offset: 8,
            gla: None,
            rights: Rights::RW,
            source: AccessSource::Instruction,
            rip: 16,
        };
        assert_eq!(
            source(&Input::Access { vcpu: VcpuId(1), access }),
            "Input::Access { vcpu: VcpuId(1), access: Access { gfn: Gfn(0x5), offset: 8, gla: None, \
             rights: Rights::from_bits(3), source: AccessSource::Instruction, rip: 16 } }"
        );
        let spelt = |control| source(&Input::Control(control));
        let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 4 };
        assert_eq!(
            spelt(enable),
            "Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 4 })"
        );
        let set = Control::SetAccess { first: Gfn(1), count: 2, access: AccessType::Rx };
        assert!(spelt(set).ends_with("access: AccessType::Rx })"));
        let policy = Control::SetNoConsumer { ring: Ring::Paging, policy: NoConsumer::Crash };
        assert!(spelt(policy).ends_with("ring: Ring::Paging, policy: NoConsumer::Crash })"));
    }
}
