//! Replays a trace: the inputs go to a fresh engine, or to one in the state that stands before the first step, and everything that it answers is
//! compared.

use super::consumers::RecordedConsumers;
use super::engine::Engine;
use super::{End, Reader, Step, Why, steps};
use crate::effect::{Effect, Effects, Outcome};
use crate::input::{Input, With};
use crate::state::Checkpoint;
use std::fmt;
use std::io::Read;

/// A replay without a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Steps applied and compared.
    pub steps: u64,
    /// Effects compared.
    pub effects: u64,
    /// States compared.
    pub states: u64,
    /// How the trace ends.
    pub end: End,
}

/// The first step at which the engine answers otherwise than recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The step's number, from 1.
    pub step: u64,
    /// What was recorded.
    pub recorded: Step,
    /// What the engine answered now.
    pub outcome: Outcome,
    /// The effects that came now.
    pub effects: Effects,
}

/// Why a replay did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The engine answers otherwise.
    Difference(Box<Difference>),
    /// All answers so far were as recorded, and the engine's state is not.
    State {
        /// The number of the last step before it.
        step: u64,
        /// What was recorded.
        recorded: Box<Checkpoint>,
        /// What it is now.
        now: Box<Checkpoint>,
    },
    /// The trace asks for a ring that cannot be, or takes from one that is not there: it cannot come from a run.
    Impossible {
        /// The step's number, from 1.
        step: u64,
        /// What is wrong.
        why: String,
    },
}

/// Replays a trace on an engine made from its header. The observer sees each step that came out as recorded, with its number
/// from 1.
///
/// # Errors
/// [`Failure`] at the first step that comes out otherwise.
pub fn replay<R: Read>(
    mut reader: Reader<R>,
    engine: &mut impl Engine,
    mut observer: impl FnMut(u64, &Step),
) -> Result<Summary, Failure> {
    let (mut consumers, mut encoded, mut taken) = (RecordedConsumers::default(), Vec::new(), Vec::new());
    let (mut number, mut effects, mut states) = (0, 0, 0);
    // What the engine answers now; where it is what was recorded, it is the recorded step.
    let mut step = Step {
        time: 0,
        code: Vec::new(),
        connection: 0,
        input: Input::Destroy,
        outcome: Outcome::Proceed,
        effects: Effects::default(),
    };
    loop {
        let ended = reader.advance().err();
        let compared = if number == 0 {
            begin(&mut reader, engine).map(|begun| {
                consumers = begun.unwrap_or_default();
                false
            })
        } else {
            compare_state(&mut reader, engine, number)
        };
        match compared {
            Ok(compared) => states += u64::from(compared),
            Err(StateFailure::Differs(failure)) => return Err(failure),
            Err(StateFailure::Unreadable(end)) => return Ok(Summary { steps: number, effects, states, end }),
        }
        if let Some(end) = ended {
            return Ok(Summary { steps: number, effects, states, end });
        }
        let told = match reader.told(&mut step.code, &mut taken) {
            Ok(told) => told,
            Err(why) => return Ok(Summary { steps: number, effects, states, end: reader.end(why) }),
        };
        number += 1;
        step.time = reader.time().saturating_add(told.later);
        step.connection = told.connection;
        step.input = told.input;
        step.effects.clear();
        let page = consumers.prepare(&step.input, &taken);
        let page = page.map_err(|why| Failure::Impossible { step: number, why })?;
        let with = With { page: page.as_ref(), ..With::NOTHING };
        step.outcome = engine.apply(&step.input, with, &mut step.effects);
        let used = match compare_answer(&mut reader, told.used, &step, &taken, &mut encoded) {
            Ok(Ok(used)) => used,
            Ok(Err(recorded)) => return Err(Failure::difference(number, *recorded, step)),
            Err(why) => {
                return Ok(Summary { steps: number - 1, effects, states, end: reader.end(Why::Content(why)) });
            }
        };
        consumers.settle(matches!(step.outcome, Outcome::Refused(..)));
        effects += step.effects.list.len() as u64;
        let accepted = reader.accept(used, step.time);
        observer(number, &step);
        if let Err(end) = accepted {
            return Ok(Summary { steps: number, effects, states, end });
        }
    }
}

/// Compares what the engine answers now with what was recorded of the same step from `begin` on: how many bytes the step has, or
/// what was recorded where that is something else.
///
/// # Errors
/// A sentence, where the recorded answer cannot be read.
fn compare_answer<R: Read>(
    reader: &mut Reader<R>,
    begin: usize,
    now: &Step,
    taken: &[u8],
    encoded: &mut Vec<u8>,
) -> Result<Result<usize, Box<Step>>, String> {
    encoded.clear();
    let written = steps::answer(encoded, reader.past(), &now.input, &now.outcome, &now.effects);
    let same = written.is_ok() && now.effects.taken == taken && reader.rest(begin).starts_with(encoded);
    let size = if same {
        encoded.len()
    } else {
        let (outcome, list, size) = steps::read_answer(reader.rest(begin), reader.past(), &now.input, taken)?;
        let effects = Effects { list, taken: taken.to_vec() };
        if outcome != now.outcome || effects != now.effects {
            return Ok(Err(Box::new(Step { outcome, effects, ..now.clone() })));
        }
        // The same values in other bytes: another writer's.
        size
    };
    reader.hears(&now.effects.list);
    Ok(Ok(begin + size))
}

enum StateFailure {
    Differs(Failure),
    Unreadable(End),
}

/// Goes on from the state before the first step, where the trace has one: its consumers.
fn begin<R: Read>(reader: &mut Reader<R>, engine: &mut impl Engine) -> Result<Option<RecordedConsumers>, StateFailure> {
    let Some(state) = reader.state() else { return Ok(None) };
    let begun = state.and_then(|state| Ok(engine.begin(state)?.map(RecordedConsumers::of)));
    begun.map_err(|why| StateFailure::Unreadable(reader.end(super::Why::Content(why))))
}

/// Compares the state after the steps so far, where the trace has one; whether it had.
fn compare_state<R: Read>(reader: &mut Reader<R>, engine: &impl Engine, step: u64) -> Result<bool, StateFailure> {
    let Some(state) = reader.state() else { return Ok(false) };
    let recorded = state.map_err(|why| StateFailure::Unreadable(reader.end(super::Why::Content(why))))?;
    match engine.checkpoint() {
        None => Ok(false),
        Some(now) if now == recorded => Ok(true),
        Some(now) => {
            let (recorded, now) = (Box::new(recorded), Box::new(now));
            Err(StateFailure::Differs(Failure::State { step, recorded, now }))
        }
    }
}

impl Failure {
    pub(super) fn difference(step: u64, recorded: Step, now: Step) -> Failure {
        let Step { outcome, effects, .. } = now;
        Failure::Difference(Box::new(Difference { step, recorded, outcome, effects }))
    }

    /// The number of the step at which it shows.
    #[must_use]
    pub fn step(&self) -> u64 {
        match self {
            Failure::Difference(difference) => difference.step,
            Failure::State { step, .. } | Failure::Impossible { step, .. } => *step,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { step, recorded, outcome, effects } = self;
        writeln!(f, "step {step}: {:?}", recorded.input)?;
        if recorded.outcome != *outcome {
            writeln!(f, "  recorded outcome: {:?}", recorded.outcome)?;
            writeln!(f, "  outcome now:      {outcome:?}")?;
        }
        let longer = recorded.effects.list.len().max(effects.list.len());
        let shown =
            |effect: Option<&Effect>| effect.map_or_else(|| "nothing".to_owned(), |effect| format!("{effect:?}"));
        for at in 0..longer {
            let (then, now) = (recorded.effects.list.get(at), effects.list.get(at));
            if then != now {
                writeln!(f, "  recorded effect {}: {}", at + 1, shown(then))?;
                writeln!(f, "  effect {} now:      {}", at + 1, shown(now))?;
                break;
            }
        }
        if recorded.effects.taken != effects.taken {
            let (then, now) = (recorded.effects.taken.len(), effects.taken.len());
            writeln!(f, "  taken from ring pages: {then} bytes recorded, {now} now")?;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Difference(difference) => difference.fmt(f),
            Failure::State { step, .. } => {
                write!(f, "step {step}: the engine's state is not what was recorded after it")
            }
            Failure::Impossible { step, why } => write!(f, "step {step}: {why}"),
        }
    }
}

impl std::error::Error for Failure {}
