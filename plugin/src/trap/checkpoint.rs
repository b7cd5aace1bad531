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
use mem_event::trace::Remark;
use mem_event::trace::remark::Point;

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

fn stopped(notice: &Notice, vcpu: VcpuId) -> Remark {
    let (at, arguments) = match *notice {
        Notice::Checkpoint { number, arguments, .. } => (Point::Number(number), arguments),
        Notice::Place { gpa, arguments, .. } => (Point::Place(gpa), arguments),
        Notice::Crashed(_) | Notice::Ended | Notice::Kill(_) => (Point::Number(0), [0; 3]),
    };
    Remark::Stopped { vcpu, at, arguments }
}

/// A vCPU is at a checkpoint, for the first time or again after it left its block. Called by the shim.
pub fn reached(vcpu: u32, stop: &StopPoint, view: &View) -> Go {
    let Some(hypervisor) = Hypervisor::get() else { return Go::Run };
    let Some(vcpu) = hypervisor.host.vcpu(vcpu) else { return Go::Run };
    let rip = stop.fetch.rip(view);
    if vcpu.trap.is_alone() {
        return Go::Run;
    }
    if vcpu.trap.comes_back_to_stop(rip) {
        return Go::Run;
    }
    let arrival = Arrival { rip, stack: view.stack(), tables: view.paging_mode().cr3 };
    if vcpu.arrive(arrival) {
        vcpu.waiting.restart_clock();
        let notice = notice(stop, vcpu.id, view);
        // Before anybody hears of it: what a client does about it comes after.
        hypervisor.remark(|| stopped(&notice, vcpu.id));
        if hypervisor.host.subscribers.notify(&notice) == 0 {
            hypervisor.remark(|| Remark::Released { vcpu: vcpu.id, connection: None });
            vcpu.release_arrival(arrival);
        }
    }
    vcpu.go(wait::for_release(&hypervisor.host, vcpu))
}
