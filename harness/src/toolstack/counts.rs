//! How many events there were, and how long they were waited for.

use mem_event::Ring;
use serde::Serialize;
use std::time::Duration;

/// Events by kind and how long the longest was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests on the paging ring.
    pub paging: u64,
    /// Requests on the access ring.
    pub access: u64,
    /// Requests on the sharing ring.
    pub sharing: u64,
    /// Stops at checkpoints.
    pub checkpoints: u64,
    /// The longest time from a request to its answer, in microseconds.
    pub longest_wait_us: u64,
}

impl Counts {
    /// Requests on a ring.
    #[must_use]
    pub fn of(mut self, ring: Ring) -> u64 {
        *self.of_mut(ring)
    }

    pub(super) fn of_mut(&mut self, ring: Ring) -> &mut u64 {
        match ring {
            Ring::Paging => &mut self.paging,
            Ring::Access => &mut self.access,
            Ring::Sharing => &mut self.sharing,
        }
    }

    /// A request waited so long.
    pub(super) fn waited(&mut self, wait: Duration) {
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.longest_wait_us = self.longest_wait_us.max(wait);
    }
}
