//! The machine is reset, or is about to get a state that was saved.

use crate::engine::hypervisor::Hypervisor;
use crate::host::vcpu::Vcpu;
use mem_event::Input;

impl Hypervisor {
    /// No vCPU stands or waits any more where it did. In QEMU's main thread, while no vCPU runs and each is out of its block.
    pub fn is_reset(&self) {
        self.host.vcpus.iter().for_each(Vcpu::passes_all_checkpoints);
        let mut engine = self.engine();
        self.host.vcpus.iter().for_each(|vcpu| engine.stands_no_more(&self.host, vcpu.id));
        if engine.domain.has_unfinished() {
            let _ = engine.step(&self.host, Input::Reset);
        }
        for vcpu in &self.host.vcpus {
            vcpu.trap.take_lent().into_iter().for_each(|gfn| engine.close(&self.host, gfn));
            vcpu.begins_anew();
        }
        engine.settle(&self.host);
    }
}
