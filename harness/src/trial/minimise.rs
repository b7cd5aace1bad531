//! The shortest recording that a consumer still fails, by the search that also shortens an engine's differences.
//!
//! What is left out is left out whole: a guest's input with its repetitions, with what the recorded consumer called for it, and with its
//! answer. What is left is done by a fresh engine with the recorded answers, so it is a recording of a run that could have been, and a
//! right consumer passes it.

use super::command::{UnderTest, read, script};
use super::exchange::Exchanges;
use super::whose::Whose;
use super::{Options, Tried, run};
use crate::output::print;
use crate::refusal::Refusal;
use crate::trace::minimise::search::{TakenInput, fewer, inputs};
use crate::trace::open;
use crate::trace::progress::Progress;
use mem_event::trace::{Context, Header, RecordedConsumers, Remark, Remarked, Tape, Writer};
use mem_event::{AccessType, Control, Domain, Effect, Effects, Input, Outcome, Request, Ring, VcpuId};
use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::path::Path;

/// What goes together: places of inputs, and of single answers of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    inputs: Vec<usize>,
    answers: Vec<(usize, usize)>,
}

/// `minimise --consumer`; 0 with a recording, 5 where the consumer passes.
///
/// # Errors
/// No trace, a consumer that cannot be started, an output that cannot be written.
pub fn minimise(path: &Path, under_test: &UnderTest, output: Option<&Path>) -> anyhow::Result<u8> {
    let Some(mut options) = under_test.options()? else { return Ok(2) };
    let output = output.ok_or_else(|| {
        Refusal::usage("no file for the shortest recording", "name one: minimise TRACE --consumer CMD --output FILE")
    })?;
    let script = script(path, &mut options)?;
    let shown = run(&script, &options, None)?;
    let Some(kind) = shown.kind() else {
        print("the consumer passes this recording\n")?;
        return Ok(5);
    };
    let mut tape = open(path)?;
    let last = tape.len();
    let all = inputs(&mut tape, last)?;
    let remarks = (0..last).map(|number| Ok(remarks(&tape.remarks(number)?))).collect::<anyhow::Result<_>>()?;
    let header = script.header;
    let whole = Whole::new(&header, (all, remarks), &options.rings)?;
    let (rings, units) = whole.parts();
    let progress = Progress::of_tries();
    let with_rings = |units: &[Unit]| [std::slice::from_ref(&rings), units].concat();
    let still = |units: &[Unit]| {
        progress.tried();
        let shows = whole.attempt(&with_rings(units), &options).is_ok_and(|tried| tried.kind() == Some(kind));
        if shows {
            progress.best(format!("{} inputs at best", units.iter().map(|unit| unit.inputs.len()).sum::<usize>()));
        }
        shows
    };
    // What can go may depend on what has gone.
    let mut least = units;
    loop {
        let before = least.len();
        least = fewer(least, 0, &still);
        if least.len() == before {
            break;
        }
    }
    let least = with_rings(&least);
    progress.end();
    std::fs::write(output, whole.recording(&least)?)
        .map_err(|error| Refusal::usage(format!("cannot write {}: {error}", output.display()), "name another file"))?;
    let tried = whole.attempt(&least, &options)?;
    let (left, whole) = (whole.without(&least).len(), last);
    let sentence = sentence(&tried);
    print(&format!("{left} of {whole} steps still show: {sentence}\nwritten: {}\n", output.display()))?;
    Ok(0)
}

fn sentence(tried: &Tried) -> String {
    let difference = || tried.difference.as_ref().map(|difference| difference.what.clone());
    tried.fault.as_ref().map(|(_, sentence)| sentence.clone()).or_else(difference).unwrap_or_default()
}

/// A request with the rights that its frame has when it is put.
type Asked = (Request, Option<AccessType>);

/// The whole recording, and what goes together in it.
struct Whole<'a> {
    header: &'a Header,
    all: Vec<TakenInput>,
    /// What stands before each input and is done again with it: orders, checkpoints, registers.
    remarks: Vec<Vec<Remark>>,
    units: Vec<Unit>,
    /// What each input asked the consumer.
    asked: Vec<Vec<Asked>>,
}

impl Whole<'_> {
    fn new<'a>(
        header: &'a Header,
        (all, remarks): (Vec<TakenInput>, Vec<Vec<Remark>>),
        rings: &[Ring],
    ) -> anyhow::Result<Whole<'a>> {
        let mut grouping = Grouping { rings, ..Grouping::default() };
        let mut asked = Vec::new();
        done(header, &all, |place, outcome, effects, domain| {
            asked.push(asks(effects, domain));
            grouping.step(place, &all[place], outcome, effects, domain);
            Ok(())
        })?;
        let units = grouping.units;
        Ok(Whole { header, all, remarks, units, asked })
    }

    /// The beginnings of rings, without which it is no recording, and all else that goes together.
    fn parts(&self) -> (Unit, Vec<Unit>) {
        let begins = |place: &usize| matches!(self.all[*place].input, Input::Control(Control::Enable { .. }));
        let units = self.units.iter().filter(|unit| **unit != Unit::default()).cloned();
        let (first, rest): (Vec<Unit>, Vec<Unit>) = units.partition(|unit| unit.inputs.iter().any(begins));
        let inputs = first.into_iter().flat_map(|unit| unit.inputs).collect();
        (Unit { inputs, answers: Vec::new() }, rest)
    }

    /// Tries the consumer on what is left.
    fn attempt(&self, units: &[Unit], options: &Options) -> anyhow::Result<Tried> {
        let tape = Tape::new(Cursor::new(self.recording(units)?))?;
        let script = read(tape, Path::new("the shorter recording"), &options.rings)?;
        run(&script, options, None)
    }

    /// The inputs of some units with their places, in their order.
    fn without(&self, units: &[Unit]) -> Vec<(usize, TakenInput)> {
        let mut kept: BTreeMap<usize, TakenInput> = BTreeMap::new();
        let empty = |place: usize| TakenInput { input: self.all[place].input.clone(), taken: Vec::new() };
        for place in units.iter().flat_map(|unit| &unit.inputs) {
            kept.entry(*place).or_insert_with(|| empty(*place));
        }
        let mut answers: Vec<(usize, usize)> = units.iter().flat_map(|unit| unit.answers.iter().copied()).collect();
        answers.sort_unstable();
        for (place, answer) in answers {
            let taken = self.all[place].taken[answer].clone();
            kept.entry(place).or_insert_with(|| empty(place)).taken.push(taken);
        }
        kept.into_iter().collect()
    }

    /// These units done by a fresh engine, as a trace. What is left must ask what it asked in the whole, of frames with the same rights:
    /// else the recorded answers are not right any more.
    fn recording(&self, units: &[Unit]) -> anyhow::Result<Vec<u8>> {
        let (places, inputs): (Vec<usize>, Vec<TakenInput>) = self.without(units).into_iter().unzip();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, self.header)?;
        let mut told = 0;
        done(self.header, &inputs, |number, outcome, effects, domain| {
            let broken = effects.list.iter().any(|effect| matches!(effect, Effect::Broken(..)));
            if broken || asks(effects, domain) != self.asked[places[number]] {
                anyhow::bail!("step {} asks something else without what is left out", number + 1);
            }
            let time = number as u64;
            for place in std::mem::replace(&mut told, places[number] + 1)..=places[number] {
                // What the toolstack did is there without the inputs around it; registers are those of the next input.
                let is_left = |remark: &&Remark| place == places[number] || !matches!(remark, Remark::Registers { .. });
                self.remarks[place].iter().filter(is_left).for_each(|remark| writer.remark(time, remark));
            }
            let context = Context { time, ..Context::default() };
            writer.record(context, &inputs[number].input, outcome, effects);
            Ok(())
        })?;
        writer.finish().map_err(anyhow::Error::msg)?;
        Ok(bytes)
    }
}

/// Of what stands between two steps that which a trial does again.
fn remarks(all: &[Remarked]) -> Vec<Remark> {
    let wanted = |remark: &&Remark| {
        matches!(
            remark,
            Remark::Ordered { .. } | Remark::Stopped { .. } | Remark::Released { .. } | Remark::Registers { .. }
        )
    };
    all.iter().map(|remarked| &remarked.remark).filter(wanted).cloned().collect()
}

/// Does inputs by a fresh engine with their recorded answers, and shows what came of each, by its place.
fn done(
    header: &Header,
    inputs: &[TakenInput],
    mut look: impl FnMut(usize, &Outcome, &Effects, &Domain) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut domain = Domain::new(header.config.clone()).map_err(anyhow::Error::msg)?;
    let (mut consumers, mut effects) = (RecordedConsumers::default(), Effects::default());
    for (place, told) in inputs.iter().enumerate() {
        effects.clear();
        let outcome = consumers.step(&mut domain, &told.input, &told.taken.concat(), &mut effects);
        look(place, &outcome.map_err(anyhow::Error::msg)?, &effects, &domain)?;
    }
    Ok(())
}

/// The requests that a step put.
fn asks(effects: &Effects, domain: &Domain) -> Vec<Asked> {
    let request = |effect: &Effect| match effect {
        Effect::Requested { request, .. } => Some((*request, request.frame().map(|gfn| domain.access_type(gfn)))),
        _ => None,
    };
    effects.list.iter().filter_map(request).collect()
}

#[derive(Default)]
struct Grouping<'a> {
    rings: &'a [Ring],
    units: Vec<Unit>,
    exchanges: Exchanges,
    /// The unit of each request, by its place.
    of_request: Vec<usize>,
    /// The unit of each vCPU's input that waits.
    waits: HashMap<VcpuId, (Input, usize)>,
}

impl Grouping<'_> {
    fn step(&mut self, place: usize, told: &TakenInput, outcome: &Outcome, effects: &Effects, domain: &Domain) {
        let unit = self.unit(&told.input, outcome);
        // What takes answers is there if one of them is.
        let takes = !told.taken.is_empty();
        if !takes {
            self.units[unit].inputs.push(place);
        }
        let mut answer = 0;
        for effect in &effects.list {
            let (put, answered, _) = self.exchanges.step(0, std::slice::from_ref(effect), domain);
            self.of_request.extend(put.iter().map(|_| unit));
            if matches!(effect, Effect::Answered { .. }) {
                let of = answered.first().map_or(unit, |request| self.of_request[*request]);
                self.units[of].answers.push((place, answer));
                answer += 1;
            }
        }
    }

    fn unit(&mut self, input: &Input, outcome: &Outcome) -> usize {
        let fresh = self.units.len();
        let unit = match input {
            Input::Access { vcpu, .. } | Input::CpuEvent { vcpu, .. } | Input::Balloon { vcpu, .. } => {
                let before = self.waits.remove(vcpu).filter(|(waiting, _)| waiting == input);
                let unit = before.map_or(fresh, |(_, unit)| unit);
                if matches!(outcome, Outcome::Wait(_)) {
                    self.waits.insert(*vcpu, (input.clone(), unit));
                }
                unit
            }
            // For the request that has waited longest.
            Input::Control(control) if self.is_consumers(control) => {
                let out = self.exchanges.out().next();
                let oldest = out.and_then(|out| self.exchanges.all.iter().position(|it| std::ptr::eq(it, out)));
                oldest.map_or(fresh, |request| self.of_request[request])
            }
            _ => fresh,
        };
        if unit == fresh {
            self.units.push(Unit::default());
        }
        unit
    }

    fn is_consumers(&self, control: &Control) -> bool {
        let asked = self.exchanges.out().next().is_some();
        Whose::new(self.rings).is_call(control, asked)
    }
}
