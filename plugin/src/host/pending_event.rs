//! A CPU event that a vCPU has to report before it goes on.

use mem_event::{CpuEvent, CpuEventKind};

/// What a vCPU has to report before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingEvent {
    /// A register was about to be written when it was this, by the instruction that ends at this address, with what was not known then.
    Write {
        /// The event, without the new value.
        event: CpuEvent,
        /// Where the guest goes on if the write took effect.
        next: u64,
    },
    /// This.
    Event(CpuEvent),
}

impl PendingEvent {
    /// Whether it is the breakpoint at this address.
    pub fn is_breakpoint_at(&self, rip: u64) -> bool {
        matches!(self, PendingEvent::Event(event) if event.kind == CpuEventKind::Int3 && event.rip.0 == rip)
    }
}
