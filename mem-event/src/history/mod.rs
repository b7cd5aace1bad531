//! The engine under a flow control of Xen's history: where its vCPUs sleep, and what they do when they wake.
//!
//! Everything here is off the usual path, which `queue` takes: a domain has a [`Historic`] from the moment a ring of it is set to another
//! flow control, and each event asks once whether there is one. What differs from `queue`: a vCPU that sleeps in its claim claims again
//! when it runs; one that sleeps in its put holds its request; a wake takes a pause back, and the vCPU runs only if that was the last. What
//! the ring does without a consumer is what its source did: it does not know that its consumer is gone, and fills up.
//!
//! | file | what lives there |
//! |---|---|
//! | `events` | claims, puts and what becomes of those that fail |
//! | `rings` | a ring's flow control is set, and it begins and ends |
//! | `wakes` | responses wake, and vCPUs go on where they slept |

mod events;
mod rings;
mod wakes;

use crate::control::Ring;
use crate::domain::Domain;
use crate::flow::{Flow, FlowKind, Stops};
use crate::historic::Historic;

impl Domain {
    /// How a ring's flow is controlled.
    #[must_use]
    pub fn flow(&self, ring: Ring) -> FlowKind {
        self.historic.as_ref().and_then(|it| it.of(ring)).map_or(FlowKind::Queue, Flow::kind)
    }

    #[inline]
    pub(crate) fn is_historic(&self, ring: Ring) -> bool {
        self.historic.as_ref().is_some_and(|it| it.of(ring).is_some())
    }

    /// What is kept of such rings. Only they come here; what would be made for another ring is empty, and changes nothing.
    fn history(&mut self) -> &mut Historic {
        let vcpus = self.config.vcpus;
        self.historic.get_or_insert_with(|| Box::new(Historic::new(vcpus)))
    }

    /// A ring's flow control, the vCPUs' stops and the ring's free slots.
    fn policy(&mut self, ring: Ring) -> Option<(&mut Flow, &mut Stops, u32)> {
        let free = self.channels[ring.index()].free();
        let (flow, stops) = self.historic.as_mut()?.parts(ring)?;
        Some((flow, stops, free))
    }
}
