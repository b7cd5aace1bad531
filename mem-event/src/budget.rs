//! How many frames the domain may hold, and which vCPUs wait for one.

use crate::number::VcpuId;
use bincode::{Decode, Encode};
use std::collections::VecDeque;

/// The domain's budget of frames.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Budget {
    /// How many the domain may hold.
    pub frames: u64,
    /// How many are reserved for woken vCPUs.
    pub granted: u64,
    /// vCPUs that wait for one, oldest first.
    pub queue: VecDeque<VcpuId>,
}

impl Budget {
    pub fn new() -> Budget {
        Budget { frames: u64::MAX, granted: 0, queue: VecDeque::new() }
    }
}
