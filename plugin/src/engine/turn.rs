//! The turn of a vCPU that does an instruction alone.

use mem_event::{Gfn, VcpuId};

/// Whose it is, and which frames are open for it.
#[derive(Debug)]
pub struct Turn {
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Opened against their rights; closed at its end.
    pub open: Vec<Gfn>,
}
