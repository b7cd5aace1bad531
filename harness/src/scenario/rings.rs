//! What a scenario says of rings.

use super::name::Name;
use mem_event::{FlowKind, Layout, NoConsumer, Ring};
use mem_event_client::channel::RingSettings;
use schemars::JsonSchema;
use serde::Deserialize;

/// The three rings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rings {
    /// The listener's.
    pub access: RingSection,
    /// The pager's.
    pub paging: RingSection,
    /// The helper's.
    pub sharing: RingSection,
}

impl Rings {
    /// A ring's settings.
    #[must_use]
    pub fn of(&self, ring: Ring) -> RingSection {
        match ring {
            Ring::Access => self.access,
            Ring::Paging => self.paging,
            Ring::Sharing => self.sharing,
        }
    }
}

/// How a ring is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RingSection {
    /// The layout of its slots.
    pub layout: Name<Layout>,
    /// How many slots, a power of two; 0 for as many as fit on a page.
    pub slots: u32,
    /// What happens to an event while the ring has no consumer: the vCPU waits, the domain crashes, or (access only) the page is
    /// relaxed.
    pub no_consumer: Name<NoConsumer>,
    /// What happens when the ring is full: this engine's queue, or what Xen did before the project's seed, by the seed's patch, or since
    /// (docs/flow.md).
    pub flow: Name<FlowKind>,
}

impl RingSection {
    /// What the ring is enabled with.
    #[must_use]
    pub fn settings(self) -> RingSettings {
        RingSettings { layout: self.layout.0, slots: self.slots }
    }
}
