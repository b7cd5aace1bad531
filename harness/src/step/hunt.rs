//! Going to the next step that fits. A long trace takes seconds, so it is done in slices and can be given up.

use crate::guest::symbols::Symbols;
use crate::trace::condition::Condition;
use crate::trace::row::Row;
use crate::trace::selection::Concerned;
use mem_event::trace::Step;
use mem_event::{Effect, Gfn, VcpuId};
use std::fmt;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A step whose words hold this, in any case of letters.
    Text(String),
    /// A step that meets a condition, and how it was written.
    Condition(String, Condition),
    /// A step that concerns this frame.
    Frame(Gfn),
    /// A step that concerns this vCPU.
    Vcpu(VcpuId),
    /// A step that puts a request on a ring.
    Event,
    /// A step at which the engine answers otherwise than recorded.
    Difference,
}

/// A search that is under way.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What for.
    pub goal: Goal,
    /// Towards the beginning.
    pub back: bool,
    /// The step that is looked at next.
    pub next: u64,
}

impl Goal {
    /// Whether a step fits. Differences are no matter of the step alone.
    #[must_use]
    pub fn fits(&self, number: u64, step: &Step, symbols: &Symbols) -> bool {
        match self {
            Goal::Text(text) => words(number, step, symbols).contains(text.as_str()),
            Goal::Condition(_, condition) => condition.holds(&Row::new(number, step, symbols), None),
            Goal::Frame(gfn) => Concerned::of(step).frame(*gfn),
            Goal::Vcpu(vcpu) => Concerned::of(step).vcpu(vcpu.0),
            Goal::Event => step.effects.list.iter().any(|effect| matches!(effect, Effect::Requested { .. })),
            Goal::Difference => false,
        }
    }
}

/// All of a step's words, in small letters.
fn words(number: u64, step: &Step, symbols: &Symbols) -> String {
    let row = Row::new(number, step, symbols);
    let vcpu = row.vcpu.map(|vcpu| format!("vcpu {vcpu}")).unwrap_or_default();
    let about = crate::trace::show::what(&row);
    format!("{} {vcpu} {about} {} {}", row.kind, row.outcome, row.effects.join("; ")).to_lowercase()
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Text(text) => write!(f, "{text:?}"),
            Goal::Condition(text, _) => write!(f, "{text}"),
            Goal::Frame(gfn) => write!(f, "frame {gfn}"),
            Goal::Vcpu(vcpu) => write!(f, "vcpu {vcpu}"),
            Goal::Event => f.write_str("a request"),
            Goal::Difference => f.write_str("a difference"),
        }
    }
}
