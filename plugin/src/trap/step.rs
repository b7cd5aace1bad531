//! Single steps, told before the instruction that follows.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::stepped;
use crate::host::state::Go;
use crate::insn::recipe::Recipe;
use crate::qemu::view::View;
use crate::trap::events;
use crate::trap::gate::Miss;
use mem_event::CpuEventKind;

/// Before an instruction, while steps are wanted: the one before it was a step, unless the vCPU only came back to this one. Called by the shim.
pub fn before(vcpu: u32, fetch: &Recipe, view: &View) -> Go {
    let Some(hypervisor) = Hypervisor::get() else { return Go::Run };
    let Some(vcpu) = hypervisor.host.vcpu(vcpu) else { return Go::Run };
    let rip = fetch.rip(view);
    if vcpu.trap.is_alone() {
        return Go::Run;
    }
    if vcpu.trap.pending_event().is_some() {
        vcpu.stand(rip, true);
        return vcpu.go(if vcpu.is_put_elsewhere() {
            Go::Leave
        } else {
            events::settle(hypervisor, vcpu, fetch, view)
        });
    }
    if !vcpu.trap.is_stepped() {
        stepped::is_over(vcpu);
        return Go::Run;
    }
    if vcpu.trap.comes_back_to(rip) || vcpu.state().is_back_at(rip) {
        return Go::Run;
    }
    vcpu.stand(rip, true);
    let gfn = Miss::new(hypervisor, vcpu, fetch, view).gfn_of_code();
    vcpu.go(events::before(hypervisor, vcpu, CpuEventKind::SingleStep, view, rip, gfn))
}
