//! What the domain says of itself: its figures, where its vCPUs stand, which devices wait, what its frames are.

use crate::engine::hypervisor::Hypervisor;
use crate::host::vcpu::Vcpu;
use mem_event::message::{self, DeviceReport, Info, VcpuReport, VcpuState};
use mem_event::{Domain, Gfn, PAGE_SIZE, VcpuId, WaitReason};
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

    /// What frames are, from this one on, as bytes.
    pub fn types(&self, first: Gfn) -> Vec<u8> {
        let types = |domain: &Domain| {
            domain.types(first, PAGE_SIZE as u64).map(|(kind, held)| message::frame_byte(kind, held)).collect()
        };
        types(&self.engine().domain)
    }
}
