//! What an engine tells of itself: where its vCPUs and rings stand, which CPU events are reported, what its frames are.

use mem_event::message::{self, MonitorReport, RingReport, RingState, VcpuState};
use mem_event::view::VcpuView;
use mem_event::{CpuEventKind, Domain, Gfn, PAGE_SIZE, Ring, RingPhase, WaitReason};

/// What a vCPU that stands at no checkpoint does, and the ring that it waits for.
#[must_use]
pub fn vcpu(view: Option<&VcpuView>) -> (VcpuState, Option<Ring>) {
    match view.and_then(|view| view.wait) {
        None => (VcpuState::Running, None),
        Some(WaitReason::Answer(ring)) => (VcpuState::Answer, Some(ring)),
        Some(WaitReason::Slot(ring)) => (VcpuState::Slot, Some(ring)),
        Some(WaitReason::Consumer(ring)) => (VcpuState::Consumer, Some(ring)),
        Some(WaitReason::Frame) => (VcpuState::Frame, None),
    }
}

/// How the rings stand; `process` is who holds each, 0 for nobody.
pub fn rings(domain: &Domain, process: impl Fn(Ring) -> u32) -> Vec<RingReport> {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let report = |ring: Ring| {
        let view = domain.ring(ring);
        let state = match view.phase {
            RingPhase::Absent => RingState::Absent,
            RingPhase::Live => RingState::Live,
            RingPhase::Draining => RingState::Draining,
            RingPhase::Lost => RingState::Lost,
            RingPhase::Broken(_) => RingState::Broken,
        };
        RingReport {
            ring,
            state,
            policy: view.policy,
            slots: view.slots,
            free: view.free,
            unanswered: count(view.outstanding.len()),
            queued: count(view.queue.len()),
            process: process(ring),
        }
    };
    Ring::ALL.into_iter().map(report).collect()
}

/// Which CPU events are reported, and how.
#[must_use]
pub fn monitors(domain: &Domain) -> Vec<MonitorReport> {
    let report =
        |kind| MonitorReport { kind, mode: domain.monitored(kind), on_change_only: domain.monitors_changes_only(kind) };
    CpuEventKind::ALL.into_iter().map(report).collect()
}

/// What frames are, from this one on, as bytes.
#[must_use]
pub fn types(domain: &Domain, first: Gfn) -> Vec<u8> {
    domain.types(first, PAGE_SIZE as u64).map(|(kind, held)| message::frame_byte(kind, held)).collect()
}
