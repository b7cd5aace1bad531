//! A touch of a page that is not mapped: the kernel keeps its thread until the page is.

use mem_event::{Access, Gfn, VcpuId};

/// Who touched a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toucher {
    /// A vCPU's thread.
    Vcpu(VcpuId),
    /// A device: in QEMU's main loop, in an I/O thread, or in the thread of the vCPU that wrote to its register.
    Foreign,
}

/// One touch, as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrameFault {
    /// The frame.
    pub gfn: Gfn,
    /// The offset in the frame.
    pub offset: u16,
    /// Whether it was a write.
    pub write: bool,
}

/// An access that stands in the kernel, and asks the engine for the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedAccess {
    /// Whose.
    pub toucher: Toucher,
    /// What the kernel said.
    pub fault: FrameFault,
    /// What the engine is asked.
    pub access: Access,
    /// What it is asked before: what the processor touches first and QEMU later.
    pub ahead: Option<Access>,
}
