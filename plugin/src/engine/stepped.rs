//! Whose steps are told, and the blocks in which they are.
//!
//! A vCPU whose steps are told has blocks of its own, where QEMU can give it some: each instruction of these looks whether it is a step, while the
//! others run what they ran. It gets them before its next block, for which it leaves the one that it stands in; where it cannot leave, it ends that one
//! untold. When its steps are told no more it has the same blocks as all again: the first instruction at which it finds that out asks for
//! it.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use crate::host::vcpu::Vcpu;
use crate::qemu::{apart, outside};
use mem_event::VcpuId;

impl Engine {
    /// Tells each vCPU whether its steps are reported.
    pub fn mark_stepped(&self, host: &Host) {
        for vcpu in &host.vcpus {
            let begins = vcpu.trap.set_stepped(self.domain.single_steps(vcpu.id));
            if begins && apart::is_there() {
                let id = vcpu.id;
                outside::before_next_block(id.0, move || has_its_blocks(id));
            }
        }
    }
}

/// A vCPU comes to an instruction that is no step any more; in its own thread.
pub fn is_over(vcpu: &Vcpu) {
    if apart::is_running() && vcpu.trap.asks_to_go_back() {
        let id = vcpu.id;
        outside::later(id.0, move || has_its_blocks(id));
    }
}

/// Its own while its steps are told, and until it has told the last; also as it begins, with a number whose steps are told. In the vCPU's thread,
/// out of any block.
pub fn has_its_blocks(vcpu: VcpuId) {
    if let Some(it) = Hypervisor::get().and_then(|hypervisor| hypervisor.host.vcpu(vcpu.0)) {
        it.trap.may_ask_to_go_back();
        apart::set(vcpu.0, it.trap.is_stepped() || it.trap.has_pending_event());
    }
}
