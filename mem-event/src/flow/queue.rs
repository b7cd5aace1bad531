//! `queue`, this engine's own: one queue a ring, and a slot that comes free is claimed for the oldest waiter before it is woken, so no
//! other can take it. A put cannot fail and cannot sleep.

use crate::flow::outcome::{Place, Try};
use crate::number::VcpuId;
use bincode::{Decode, Encode};
use std::collections::VecDeque;

/// Claims, and who waits for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Queue {
    /// Claims of the domain's vCPUs that are not put yet; between steps, those granted to woken vCPUs.
    pub(crate) targets: u32,
    /// Claims of others that are not put yet; between steps, none.
    pub(crate) foreigners: u32,
    /// Who waits, oldest first.
    pub(crate) waiters: VecDeque<VcpuId>,
}

impl Queue {
    /// Free slots that nobody has claimed.
    #[inline(always)]
    pub(crate) fn available(&self, free: u32) -> u32 {
        let claimed = self.targets + self.foreigners;
        assert!(claimed <= free, "{claimed} slots are claimed of {free}");
        free - claimed
    }

    /// A claim of one of the domain's vCPUs; whether there was a slot.
    #[inline(always)]
    pub(crate) fn claim(&mut self, free: u32) -> bool {
        let room = self.available(free) > 0;
        self.targets += u32::from(room);
        room
    }

    /// A claim of a foreign caller, which cannot wait: it leaves a slot for the guest (unless the ring has only one). While a vCPU waits
    /// every free slot is promised, so this never overtakes one.
    pub(crate) fn claim_foreign(&mut self, free: u32, slots: u32) -> bool {
        let room = self.available(free) > u32::from(slots > 1);
        self.foreigners += u32::from(room);
        room
    }

    /// Stands in line.
    pub(crate) fn wait(&mut self, vcpu: VcpuId) -> Try {
        self.waiters.push_back(vcpu);
        Try::Asleep(Place::Line)
    }

    /// Claims a slot for the oldest waiter, where there is both. From then on it is the waiter's.
    #[inline]
    pub(crate) fn grant(&mut self, free: u32) -> Option<VcpuId> {
        if self.waiters.is_empty() || self.available(free) == 0 {
            return None;
        }
        self.targets += 1;
        self.waiters.pop_front()
    }

    /// Claims are void; who waits goes on waiting.
    pub(crate) fn revoke(&mut self) {
        (self.targets, self.foreigners) = (0, 0);
    }

    /// A claim is used, or given back.
    #[inline(always)]
    pub(crate) fn discharge(&mut self, foreign: bool) {
        let count = if foreign { &mut self.foreigners } else { &mut self.targets };
        assert!(*count > 0, "more claims are given back than were made");
        *count -= 1;
    }
}
