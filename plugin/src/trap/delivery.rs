//! Before an exception or interrupt is delivered to a vCPU: a debug exception that no `int1` raised, and what an answer asked for
//! (`GET_NEXT_INTERRUPT`) or a monitor tells.
//!
//! The vCPU is out of any block, all its registers stand in its state, and nothing of the delivery has been done. A debug exception that its answer
//! did not inject is dropped, as in Xen, where it came by an exit: the vCPU goes on where it stands.

use crate::engine::hypervisor::Hypervisor;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::qemu::delivery::{self, Delivery, Then};
use crate::qemu::view::View;
use crate::trap::wait;
use mem_event::message::Space;
use mem_event::{CpuEvent, CpuEventKind, Gfn, Gla, Outcome, TrapKind};

const DEBUG: u8 = 1;

/// Tells of what a vCPU is about to get, where somebody wants to know. Called by QEMU's vCPU loop.
pub fn before(number: u32, view: &View, found: Delivery) -> Then {
    let Some(hypervisor) = Hypervisor::get() else { return Then::Deliver };
    let Some(vcpu) = hypervisor.host.vcpu(number) else { return Then::Deliver };
    let at = (hypervisor, vcpu, view);
    let is_debug = found.vector == DEBUG && found.kind == TrapKind::Exception;
    let mut is_told = false;
    if let Some(kind) = vcpu.trap.takes_held() {
        // It left its loop while it told so, and is back; maybe with what was injected meanwhile in the place of that.
        let then = if let Some(event) = vcpu.trap.pending_event() {
            ask(at, event)
        } else {
            // An answer has put it elsewhere, and with that the event is over.
            delivery::want_next(number, hypervisor.tells_next_interrupt(vcpu.id));
            if kind == CpuEventKind::Debug { Then::Drop } else { Then::Deliver }
        };
        match (kind, then) {
            (_, Then::Leave) => return then,
            (CpuEventKind::Debug, Then::Drop) if is_debug => return then,
            (CpuEventKind::Debug, _) => vcpu.trap.set_told_debug(true),
            _ => is_told = true,
        }
    }
    let rip = view.linear_instruction_pointer();
    let event = |kind, value, old, number, gfn| CpuEvent { kind, value, old, number, rip: Gla(rip), gfn };
    if is_debug && !is_told && !vcpu.trap.has_told_debug() && delivery::wants_debug() {
        let space = Space { vcpu: vcpu.id, cr3: None };
        let gfn = hypervisor.translate(space, Gla(rip)).map_or(Gfn(0), mem_event::Gpa::gfn);
        let then = ask(at, event(CpuEventKind::Debug, found.causes.into(), 0, 0, gfn));
        vcpu.trap.set_told_debug(then == Then::Deliver);
        if then != Then::Deliver {
            return then;
        }
    }
    if !is_told && delivery::wants(number) {
        let packed = found.kind.packed(found.vector);
        if ask(at, event(CpuEventKind::Interrupt, found.cr2, found.error.into(), packed, Gfn(0))) == Then::Leave {
            return Then::Leave;
        }
    }
    vcpu.trap.set_told_debug(false);
    Then::Deliver
}

/// Asks the engine until it lets the vCPU go on, or the vCPU leaves its loop for a moment.
fn ask((hypervisor, vcpu, view): (&Hypervisor, &Vcpu, &View), event: CpuEvent) -> Then {
    let rip = event.rip.0;
    vcpu.trap.set_pending_event(Some(event));
    vcpu.stand(rip, true);
    loop {
        let then = match hypervisor.cpu_event(vcpu, event, view, rip) {
            Outcome::Wait(_) | Outcome::Crashed => {
                if wait::for_engine(hypervisor, vcpu) == Go::Run {
                    continue;
                }
                Then::Leave
            }
            Outcome::Retry(_) => Then::Drop,
            _ => Then::Deliver,
        };
        // It comes back to here. Else what the engine knows: this one may have been what an answer asked for, and its own answer may ask for the next.
        delivery::want_next(vcpu.id.0, then == Then::Leave || hypervisor.tells_next_interrupt(vcpu.id));
        if then == Then::Leave {
            vcpu.trap.holds(event.kind);
            vcpu.go(Go::Leave);
        } else {
            vcpu.trap.set_pending_event(None);
            // What is reported next is another's.
            vcpu.report();
            vcpu.go(Go::Run);
        }
        return then;
    }
}
