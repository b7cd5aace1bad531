//! What a scenario allows a run, besides its sequence: for judgement on one's own machine.

use super::{Size, Time};
use schemars::JsonSchema;
use serde::Deserialize;

/// What a run must keep to. Times are those in which the guest's vCPUs stood still, by the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Budget {
    /// Of 100 stops 99 take no longer.
    pub p99: Option<Time>,
    /// No stop takes longer.
    pub longest: Option<Time>,
    /// The guest never holds more memory.
    pub resident: Option<Size>,
    /// So many nominations of frames may be refused.
    #[serde(alias = "refused_nominations")]
    pub refused_nominations: Option<u64>,
}

impl Budget {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Budget::default()
    }
}
