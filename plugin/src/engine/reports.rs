//! What the domain says of itself: its figures, where its vCPUs and rings stand, which CPU events are reported, which devices wait, what its
//! frames are.

use crate::engine::hypervisor::Hypervisor;
use crate::host::vcpu::Vcpu;
use mem_event::message::{self, DeviceReport, Info, MonitorReport, RingReport, RingState, VcpuReport, VcpuState};
use mem_event::{CpuEventKind, Domain, Gfn, PAGE_SIZE, Ring, RingPhase, VcpuId, WaitReason};
use std::time::Instant;

impl Hypervisor {
    /// The domain's figures.
    pub fn info(&self) -> Info {
        self.engine().domain.info()
    }

    /// Where each vCPU stands, from this one on, as far as one reply has room.
    pub fn reports(&self, first: VcpuId) -> Vec<VcpuReport> {
        let engine = self.engine();
        let report = |vcpu: &Vcpu| {
            let view = engine.domain.vcpu_view(vcpu.id);
            let (state, ring) = match view.and_then(|view| view.wait) {
                _ if vcpu.awaits_release() => (VcpuState::Checkpoint, None),
                // One that was unplugged waits for nothing, whatever of its is still out.
                _ if !vcpu.has_started() => (VcpuState::Running, None),
                None => (VcpuState::Running, None),
                Some(WaitReason::Answer(ring)) => (VcpuState::Answer, Some(ring)),
                Some(WaitReason::Slot(ring)) => (VcpuState::Slot, Some(ring)),
                Some(WaitReason::Consumer(ring)) => (VcpuState::Consumer, Some(ring)),
                Some(WaitReason::Frame) => (VcpuState::Frame, None),
            };
            let waited = if state == VcpuState::Running { 0 } else { vcpu.waiting.waited() };
            VcpuReport { state, ring, frame: view.and_then(|view| view.stopped_on), waited }
        };
        self.host.vcpus.iter().skip(first.0 as usize).take(VcpuReport::MOST).map(report).collect()
    }

    /// The accesses of devices that wait, as far as one reply has room.
    pub fn devices(&self) -> Vec<DeviceReport> {
        let millis = |since: Instant| u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX);
        let report = |(gfn, since)| DeviceReport { gfn, waited: millis(since) };
        self.engine().stopped.foreign().take(DeviceReport::MOST).map(report).collect()
    }

    /// How the rings stand.
    pub fn rings(&self) -> Vec<RingReport> {
        let engine = self.engine();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let report = |ring: Ring| {
            let view = engine.domain.ring(ring);
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
                process: self.host.channel(ring).map_or(0, |channel| channel.process),
            }
        };
        Ring::ALL.into_iter().map(report).collect()
    }

    /// Which CPU events are reported, and how.
    pub fn monitors(&self) -> Vec<MonitorReport> {
        let domain = &self.engine().domain;
        let report = |kind| MonitorReport {
            kind,
            mode: domain.monitored(kind),
            on_change_only: domain.monitors_changes_only(kind),
        };
        CpuEventKind::ALL.into_iter().map(report).collect()
    }

    /// What frames are, from this one on, as bytes.
    pub fn types(&self, first: Gfn) -> Vec<u8> {
        let types = |domain: &Domain| {
            domain.types(first, PAGE_SIZE as u64).map(|(kind, held)| message::frame_byte(kind, held)).collect()
        };
        types(&self.engine().domain)
    }
}
