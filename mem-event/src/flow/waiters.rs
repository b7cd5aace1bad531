//! Xen's wait queue: who stands in it has one more pause, and who is taken out of it one less. Nothing is handed over with the wake.

use crate::flow::stops::Stops;
use crate::number::VcpuId;
use bincode::{Decode, Encode};
use std::collections::VecDeque;

/// The sleepers, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Waiters {
    pub list: VecDeque<VcpuId>,
}

impl Waiters {
    /// `prepare_to_wait`: at the tail.
    pub fn join(&mut self, vcpu: VcpuId, stops: &mut Stops) {
        self.list.push_back(vcpu);
        stops.pause(vcpu);
    }

    /// `wake_up_nr`.
    pub fn wake(&mut self, most: u32, stops: &mut Stops) {
        for _ in 0..most {
            let Some(vcpu) = self.list.pop_front() else { return };
            stops.unpause(vcpu);
        }
    }
}
