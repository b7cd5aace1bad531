//! An instruction before which vCPUs stop, as the translation of its block leaves it for the run.

use crate::insn::recipe::Recipe;
use mem_event::Gpa;

/// An instruction before which vCPUs stop.
#[derive(Clone, Debug)]
pub struct StopPoint {
    /// The recipe of its fetch.
    pub fetch: Recipe,
    /// Where it lies, if it is a breakpoint; else it is a checkpoint, which has its number in a register.
    pub breakpoint: Option<Gpa>,
}
