//! Applies a trace's inputs to a fresh engine and compares what it answers.
//!
//! The consumers do not run again. What the engine took from a ring page stands in the trace, so before each step the replay
//! writes exactly that into the page, as the consumer did, and then gives the input.

use super::{End, Reader, Step, codec};
use crate::control::{Control, Layout, Ring};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::input::Input;
use crate::page::RingPage;
use crate::ring::Back;
use crate::taken::{self, Taken};
use std::fmt;
use std::io::Read;

/// What a replay drives: the engine, or one that a test has broken on purpose.
pub trait Engine {
    /// The page for a ring's next `Enable`.
    fn supply(&mut self, ring: Ring, page: RingPage);

    /// One step; effects are appended.
    fn apply(&mut self, input: &Input, effects: &mut Effects) -> Outcome;
}

impl Engine for Domain {
    fn supply(&mut self, ring: Ring, page: RingPage) {
        Domain::supply(self, ring, page);
    }

    fn apply(&mut self, input: &Input, effects: &mut Effects) -> Outcome {
        Domain::apply(self, input, effects)
    }
}

/// A replay without a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Steps applied and compared.
    pub steps: u64,
    /// Effects compared.
    pub effects: u64,
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
    let mut consumers: [Option<Back>; 3] = [None, None, None];
    let (mut steps, mut effects, mut encoded) = (0, 0, Vec::new());
    // What the engine answers now; where it is what was recorded, it is the recorded step.
    let mut step = Step { input: Input::Destroy, outcome: Outcome::Proceed, effects: Effects::default() };
    loop {
        if let Err(end) = reader.advance() {
            return Ok(Summary { steps, effects, end });
        }
        let told = match reader.told() {
            Ok(told) => told,
            Err(why) => return Ok(Summary { steps, effects, end: reader.end(why) }),
        };
        steps += 1;
        step.input = told.input;
        step.effects.clear();
        let enabled = prepare(engine, &mut consumers, &step.input, told.taken)
            .map_err(|why| Failure::Impossible { step: steps, why })?;
        step.outcome = engine.apply(&step.input, &mut step.effects);
        encoded.clear();
        let same = codec::answer(&mut encoded, &step.outcome, &step.effects).is_ok()
            && encoded == told.answer
            && step.effects.taken == told.taken;
        if !same {
            match reader.step() {
                Ok(recorded) if recorded != step => return Err(Failure::difference(steps, recorded, step)),
                // The same values in other bytes: another writer's.
                Ok(_) => {}
                Err(why) => return Ok(Summary { steps: steps - 1, effects, end: reader.end(why) }),
            }
        }
        if let Some((ring, back)) = enabled
            && !matches!(step.outcome, Outcome::Refused(..))
        {
            consumers[ring.index()] = Some(back);
        }
        effects += step.effects.list.len() as u64;
        reader.accept();
        observer(steps, &step);
    }
}

/// What the world outside did before the step: a page for a ring to be enabled, responses in those that are.
fn prepare(
    engine: &mut impl Engine,
    consumers: &mut [Option<Back>; 3],
    input: &Input,
    taken: &[u8],
) -> Result<Option<(Ring, Back)>, String> {
    for record in taken::records(taken) {
        let (Taken::Slot(ring, _) | Taken::Broken(ring, _)) = record;
        let back = consumers[ring.index()]
            .as_mut()
            .ok_or_else(|| format!("something was taken from the {ring} ring, which nobody enabled"))?;
        match record {
            Taken::Slot(_, bytes) => back.answer_raw(bytes),
            Taken::Broken(_, rsp_prod) => back.set_rsp_prod(rsp_prod),
        }
    }
    match *input {
        Input::Control(Control::Enable { ring, layout, slots }) => {
            let page = RingPage::heap();
            engine.supply(ring, page.clone());
            Ok(consumer(page, ring, layout, slots).map(|back| (ring, back)))
        }
        _ => Ok(None),
    }
}

/// The half that answers on the page; none for a number of slots that the engine is going to refuse.
fn consumer(page: RingPage, ring: Ring, layout: Layout, slots: u32) -> Option<Back> {
    Back::init(page, ring, layout, slots).ok()
}

impl Failure {
    fn difference(step: u64, recorded: Step, now: Step) -> Failure {
        let Step { outcome, effects, .. } = now;
        Failure::Difference(Box::new(Difference { step, recorded, outcome, effects }))
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
            Failure::Impossible { step, why } => write!(f, "step {step}: {why}"),
        }
    }
}

impl std::error::Error for Failure {}
