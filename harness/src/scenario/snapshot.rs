//! What of a scenario's sequence is compared with its snapshot.

use schemars::JsonSchema;
use serde::Deserialize;

/// What of a sequence is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Snapshot {
    /// Which lines.
    pub show: Vec<Shown>,
    /// Their order: each vCPU's by itself (the default with several vCPUs), or as they came, for scenarios whose vCPUs take
    /// turns by checkpoints.
    pub order: Option<Order>,
}

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// Checkpoints and what was done there.
    Checkpoints,
    /// Events of the access ring.
    Access,
    /// Events of the paging ring.
    Paging,
    /// Events of the sharing ring.
    Sharing,
    /// What consumers that are no part of this program did outside of answers.
    Acts,
    /// How it ended, as a last line.
    Verdict,
}

/// An order of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Each vCPU has a part of its own.
    Vcpu,
    /// As they came.
    Arrival,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        let show = vec![Shown::Checkpoints, Shown::Access, Shown::Paging, Shown::Sharing, Shown::Acts];
        Snapshot { show, order: None }
    }
}
