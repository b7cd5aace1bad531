//! What the domain says of itself: its figures, where its vCPUs and rings stand, which CPU events are reported, which devices wait, what its
//! frames are.

use crate::engine::hypervisor::Hypervisor;
use crate::host::vcpu::Vcpu;
use mem_event::message::{DeviceReport, Info, MonitorReport, RingReport, VcpuReport, VcpuState};
use mem_event::{Gfn, VcpuId};
use mem_event_server::reports;
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
            let (state, ring) = match &view {
                _ if vcpu.awaits_release() => (VcpuState::Checkpoint, None),
                // One that was unplugged waits for nothing, whatever of its is still out.
                _ if !vcpu.has_started() => (VcpuState::Running, None),
                view => match reports::vcpu(view.as_ref()) {
                    (VcpuState::Running, _) if self.host.is_paused() => (VcpuState::Paused, None),
                    other => other,
                },
            };
            let waited =
                if matches!(state, VcpuState::Running | VcpuState::Paused) { 0 } else { vcpu.waiting.waited() };
            let stays = engine.stopped.stays(vcpu.id).filter(|_| state != VcpuState::Running);
            VcpuReport { state, ring, frame: view.and_then(|view| view.stopped_on), waited, stays }
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
        reports::rings(&engine.domain, |ring| self.host.channel(ring).map_or(0, |channel| channel.process))
    }

    /// Which CPU events are reported, and how.
    pub fn monitors(&self) -> Vec<MonitorReport> {
        reports::monitors(&self.engine().domain)
    }

    /// What frames are, from this one on, as bytes.
    pub fn types(&self, first: Gfn) -> Vec<u8> {
        reports::types(&self.engine().domain, first)
    }
}
