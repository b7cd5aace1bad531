//! An engine at any step of a trace.

use super::consumers::RecordedConsumers;
use super::{Difference, End, Failure, Header, Remarked, Step, Tape};
use crate::domain::Domain;
use crate::effect::{Effects, Outcome};
use crate::input::With;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

/// A trace with the engine as it was after one of its steps. Going forward is as fast as a replay; going anywhere else begins at the
/// last state in the trace before it.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut player = mem_event::trace::Player::open("trace")?;
/// player.seek(player.len() / 2)?;
/// println!("{:?}", player.domain().ring(mem_event::Ring::Access));
/// if let Some(step) = player.forward()? {
///     println!("step {}: {:?}", player.number(), step.input);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Player<R: Read + Seek = BufReader<File>> {
    tape: Tape<R>,
    engine: Domain,
    consumers: RecordedConsumers,
    number: u64,
    /// The engine did something else than the trace's next step.
    astray: bool,
    effects: Effects,
}

/// Why a player does not go there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlayerError {
    /// The trace ends before, or is damaged.
    End(End),
    /// The engine answers otherwise than recorded, or the trace cannot come from a run.
    Failure(Failure),
    /// The header's domain cannot be.
    NoDomain(String),
}

impl Player {
    /// Opens a file, before its first step.
    ///
    /// # Errors
    /// [`PlayerError::End`] as of [`Tape::open`]; [`PlayerError::NoDomain`].
    pub fn open(path: impl AsRef<Path>) -> Result<Player, PlayerError> {
        Player::new(Tape::open(path).map_err(PlayerError::End)?)
    }
}

impl<R: Read + Seek> Player<R> {
    /// The engine before the first step.
    ///
    /// # Errors
    /// [`PlayerError::NoDomain`].
    pub fn new(tape: Tape<R>) -> Result<Player<R>, PlayerError> {
        let engine = Domain::new(tape.header().config.clone()).map_err(PlayerError::NoDomain)?;
        let (consumers, effects) = (RecordedConsumers::default(), Effects::default());
        let mut player = Player { tape, engine, consumers, number: 0, astray: false, effects };
        // A recording that began in the midst of a run begins with a state.
        player.begin_before(0)?;
        Ok(player)
    }

    /// The trace's header.
    pub fn header(&self) -> &Header {
        self.tape.header()
    }

    /// How many steps the trace has.
    pub fn len(&self) -> u64 {
        self.tape.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.tape.is_empty()
    }

    /// The trace itself, to read steps without applying them.
    pub fn tape(&mut self) -> &mut Tape<R> {
        &mut self.tape
    }

    /// The remarks that stand right after the steps that are applied, and before the next one.
    ///
    /// # Errors
    /// [`PlayerError::End`] at damage.
    pub fn remarks(&mut self) -> Result<Vec<Remarked>, PlayerError> {
        self.tape.remarks(self.number).map_err(PlayerError::End)
    }

    /// How many steps are applied.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The engine after [`Player::number`] steps; after a [`PlayerError::Failure`] as it came out of the step that differs.
    pub fn domain(&self) -> &Domain {
        &self.engine
    }

    /// Applies the next step and compares; `None` after the last one.
    ///
    /// # Errors
    /// [`PlayerError::End`] at damage; [`PlayerError::Failure`] where the engine answers otherwise. [`Player::seek`] to a step before it works,
    /// and going forward from there meets it again.
    pub fn forward(&mut self) -> Result<Option<Step>, PlayerError> {
        if self.number == self.len() {
            return Ok(None);
        }
        let number = self.number + 1;
        if self.astray {
            self.seek(self.number)?;
        }
        let step = self.tape.step(number).map_err(PlayerError::End)?;
        self.effects.clear();
        let page = self.consumers.prepare(&step.input, &step.effects.taken).map_err(|why| {
            self.astray = true;
            PlayerError::Failure(Failure::Impossible { step: number, why })
        })?;
        let with = With { page: page.as_ref(), ..With::NOTHING };
        let outcome = self.engine.apply(&step.input, with, &mut self.effects);
        let step = step.clone();
        if outcome != step.outcome || self.effects != step.effects {
            self.astray = true;
            let effects = std::mem::take(&mut self.effects);
            let difference = Difference { step: number, recorded: step, outcome, effects };
            return Err(PlayerError::Failure(Failure::Difference(Box::new(difference))));
        }
        self.consumers.settle(matches!(outcome, Outcome::Refused(..)));
        self.number = number;
        Ok(Some(step))
    }

    /// Goes to where so many steps are applied; 0 is before the first.
    ///
    /// # Errors
    /// As [`Player::forward`]; [`PlayerError::End`] for more steps than there are.
    pub fn seek(&mut self, number: u64) -> Result<(), PlayerError> {
        if number > self.len() {
            return Err(PlayerError::End(self.tape.end().clone()));
        }
        let state = self.tape.index().states_before(number).next().map_or(0, |state| state.steps);
        if self.astray || self.number > number || self.number < state {
            self.begin_before(number)?;
        }
        while self.number < number {
            self.forward()?;
        }
        Ok(())
    }

    /// The last state before a step that can be read; else the beginning.
    fn begin_before(&mut self, number: u64) -> Result<(), PlayerError> {
        self.astray = false;
        let states: Vec<_> = self.tape.index().states_before(number).collect();
        for at in states {
            let restored = self.tape.state(at).and_then(|state| Domain::restore(self.header().config.clone(), state));
            if let Ok(engine) = restored {
                self.consumers = RecordedConsumers::of(&engine);
                (self.engine, self.number) = (engine, at.steps);
                return Ok(());
            }
        }
        self.engine = Domain::new(self.header().config.clone()).map_err(PlayerError::NoDomain)?;
        (self.consumers, self.number) = (RecordedConsumers::default(), 0);
        Ok(())
    }
}

impl fmt::Display for PlayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlayerError::End(end) => end.fmt(f),
            PlayerError::Failure(failure) => failure.fmt(f),
            PlayerError::NoDomain(why) => write!(f, "the trace's domain cannot be: {why}"),
        }
    }
}

impl std::error::Error for PlayerError {}

impl<R: Read + Seek> fmt::Debug for Player<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player").field("tape", &self.tape).field("number", &self.number).finish_non_exhaustive()
    }
}
