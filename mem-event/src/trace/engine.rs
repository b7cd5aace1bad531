//! What a replay drives: the domain, or an engine of a test.

use crate::domain::Domain;
use crate::effect::{Effects, Outcome};
use crate::input::{Input, With};
use crate::state::Checkpoint;

/// What a replay drives.
pub trait Engine {
    /// One step; effects are appended. `with` holds the page of a ring that the step enables.
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome;

    /// Its state, to be compared with those in the trace; `None` for an engine that has no such.
    fn checkpoint(&self) -> Option<Checkpoint> {
        None
    }
}

impl Engine for Domain {
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome {
        Domain::apply(self, input, with, effects)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Some(Domain::checkpoint(self))
    }
}
