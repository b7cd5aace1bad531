//! What a replay drives: the domain, or an engine of a test.

use crate::domain::Domain;
use crate::effect::{Effects, Outcome};
use crate::input::{Input, With};
use crate::state::Checkpoint;

/// What a replay drives.
pub trait Engine {
    /// One step; effects are appended. `with` holds the page of a ring that the step enables.
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome;

    /// Goes on from a state before the first step: the recording began in the midst of a run. The domain then; `None` for an engine that has no
    /// states.
    ///
    /// # Errors
    /// A sentence, where the state is none of its domain.
    fn begin(&mut self, state: Checkpoint) -> Result<Option<&Domain>, String> {
        drop(state);
        Ok(None)
    }

    /// Its state, to be compared with those in the trace; `None` for an engine that has no such.
    fn checkpoint(&self) -> Option<Checkpoint> {
        None
    }
}

impl Engine for Domain {
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome {
        Domain::apply(self, input, with, effects)
    }

    fn begin(&mut self, state: Checkpoint) -> Result<Option<&Domain>, String> {
        *self = Domain::restore(self.config.clone(), state)?;
        Ok(Some(self))
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Domain::checkpoint(self))
    }
}
