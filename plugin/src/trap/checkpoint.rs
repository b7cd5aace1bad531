//! Checkpoints: a guest says "here", or reaches a place that was named, and the vCPU stands until a client lets it go on.

use crate::engine::hypervisor::Hypervisor;
use crate::host::checkpoints::Arrival;
use crate::host::state::Go;
use crate::insn::registers::Registers;
use crate::insn::stop_point::StopPoint;
use crate::qemu::view::View;
use crate::trap::wait;
use mem_event::VcpuId;
use mem_event::message::Notice;

const RSI: u8 = 6;
const RDI: u8 = 7;
const RCX: u8 = 1;
const RDX: u8 = 2;

fn notice(stop: &StopPoint, vcpu: VcpuId, view: &View) -> Notice {
    let [di, si, d, c] = [RDI, RSI, RDX, RCX].map(|register| view.general(register));
    match stop.breakpoint {
        None => Notice::Checkpoint { vcpu, number: di, arguments: [si, d, c] },
        Some(gpa) => Notice::Place { vcpu, gpa, arguments: [di, si, d] },
    }
}

/// A vCPU is at a checkpoint, for the first time or again after it left its block. Called by the shim.
pub fn reached(vcpu: u32, stop: &StopPoint, view: &View) -> Go {
    let Some(hypervisor) = Hypervisor::get() else { return Go::Run };
    let Some(vcpu) = hypervisor.host.vcpu(vcpu) else { return Go::Run };
    let arrival = Arrival { rip: stop.fetch.rip(view), stack: view.stack(), tables: view.paging_mode().cr3 };
    if vcpu.arrive(arrival) {
        vcpu.waiting.restart_clock();
        if hypervisor.host.subscribers.notify(&notice(stop, vcpu.id, view)) == 0 {
            vcpu.release_arrival(arrival);
        }
    }
    vcpu.go(wait::for_release(vcpu))
}
