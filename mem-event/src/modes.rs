//! Which CPU events are reported, and how.

use crate::control::{CpuEventKind, MonitorMode};
use bincode::{Decode, Encode};

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Monitor {
    pub modes: [(MonitorMode, bool); CpuEventKind::ALL.len()],
}
