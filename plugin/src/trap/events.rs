//! CPU events: writes to control and model-specific registers, breakpoints, single steps.
//!
//! A register's write is reported after it took effect. The check before the instruction notes the old value and empties the
//! page cache, so the next block's fetch is checked the long way, and there the new value is read. A breakpoint is reported
//! before it is delivered, a step before the instruction that follows it.

use crate::engine::hypervisor::Hypervisor;
use crate::host::pending_event::PendingEvent;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::insn::recipe::{Recipe, Special};
use crate::insn::registers::Registers;
use crate::qemu::register::{Register, read_register};
use crate::qemu::view::View;
use crate::trap::wait;
use mem_event::{CpuEvent, CpuEventKind, Gfn, Gla, Outcome};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// Notes what an instruction is about to write.
pub fn note(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) {
    let rip = recipe.rip(view);
    let write = |kind: CpuEventKind, value: u64, old: u64, msr: u32| PendingEvent::Write {
        event: CpuEvent { kind, value, old, msr, rip: Gla(rip), gfn: Gfn(0) },
        next: rip.wrapping_add(u64::from(recipe.length)),
    };
    let pending = match recipe.special {
        Special::WriteControl(number) => {
            let Some((kind, register)) = control_register(number) else { return };
            write(kind, 0, read_register(register).unwrap_or(0), 0)
        }
        Special::WriteMsr => {
            let low = |register| view.general(register) & 0xffff_ffff;
            let msr = u32::try_from(low(RCX)).unwrap_or(0);
            write(CpuEventKind::Msr, low(RDX) << 32 | low(RAX), 0, msr)
        }
        _ => return,
    };
    if let PendingEvent::Write { event, .. } = pending
        && hypervisor.is_monitored(event.kind)
    {
        vcpu.trap.set_pending_event(Some(pending));
    }
}

/// Reports the event that is pending. `Run`: nothing is, or its time is over.
pub fn settle(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) -> Go {
    let event = match vcpu.trap.pending_event() {
        None => return Go::Run,
        Some(PendingEvent::Event(event)) => {
            let comes_to_it = PendingEvent::Event(event).is_breakpoint_at(recipe.rip(view));
            if comes_to_it && recipe.special != Special::Breakpoint {
                // The check of the breakpoint itself comes after that of its fetch, and must know that it was reported.
                if is_there(hypervisor, event) {
                    return Go::Run;
                }
                // Overwritten meanwhile. What the engine was not asked about yet did not happen.
                if vcpu.waiting.pending_retry().is_none() {
                    vcpu.trap.set_pending_event(None);
                    return Go::Run;
                }
            }
            event
        }
        Some(PendingEvent::Write { event, next }) => match taken_effect(event, next, recipe.rip(view)) {
            None => {
                vcpu.trap.set_pending_event(None);
                return Go::Run;
            }
            Some(event) => event,
        },
    };
    report(hypervisor, vcpu, event, view, recipe.rip(view))
}

/// Whether the vCPU leaves its block once before it asks: the request carries its registers, and only at the beginning of a block
/// are all flags there.
pub fn leaves_for_flags(hypervisor: &Hypervisor, vcpu: &Vcpu) -> bool {
    hypervisor.host.wants_whole_flags() && vcpu.state().may_leave() && !vcpu.report()
}

/// A breakpoint is about to be delivered, or an instruction follows a step.
pub fn before(hypervisor: &Hypervisor, vcpu: &Vcpu, kind: CpuEventKind, view: &View, rip: u64, gfn: Gfn) -> Go {
    if !hypervisor.is_monitored(kind) {
        return Go::Run;
    }
    report(hypervisor, vcpu, CpuEvent { kind, value: 0, old: 0, msr: 0, rip: Gla(rip), gfn }, view, rip)
}

/// Reports one event and waits for what the engine wants to wait for.
fn report(hypervisor: &Hypervisor, vcpu: &Vcpu, event: CpuEvent, view: &View, rip: u64) -> Go {
    vcpu.trap.set_pending_event(Some(PendingEvent::Event(event)));
    if leaves_for_flags(hypervisor, vcpu) {
        return Go::Leave;
    }
    loop {
        match hypervisor.cpu_event(vcpu, event, view, rip) {
            Outcome::Wait(_) | Outcome::Crashed => {
                if wait::for_engine(hypervisor, vcpu) == Go::Leave {
                    return Go::Leave;
                }
            }
            outcome => {
                vcpu.trap.set_pending_event(None);
                // Of a breakpoint: its instruction is fetched again, and if it is still there, that is another event.
                let again = matches!(outcome, Outcome::Retry(_)) && vcpu.state().may_leave();
                return if again { Go::Leave } else { Go::Run };
            }
        }
    }
}

/// Whether the breakpoint of an event still stands where it was.
fn is_there(hypervisor: &Hypervisor, event: CpuEvent) -> bool {
    const INT3: u8 = 0xcc;
    let mut byte = [0];
    let offset = (event.rip.0 & 0xfff) as u16;
    hypervisor.host.memory.read(event.gfn, offset, &mut byte).is_ok() && byte == [INT3]
}

fn control_register(number: u8) -> Option<(CpuEventKind, Register)> {
    match number {
        0 => Some((CpuEventKind::Cr0, Register::CR0)),
        3 => Some((CpuEventKind::Cr3, Register::CR3)),
        4 => Some((CpuEventKind::Cr4, Register::CR4)),
        _ => None,
    }
}

/// The event with its new value; nothing where the instruction faulted instead. An interrupt may come first, so going on
/// elsewhere with another value counts as well.
fn taken_effect(event: CpuEvent, next: u64, rip: u64) -> Option<CpuEvent> {
    let value = match event.kind {
        CpuEventKind::Cr0 => read_register(Register::CR0)?,
        CpuEventKind::Cr3 => read_register(Register::CR3)?,
        CpuEventKind::Cr4 => read_register(Register::CR4)?,
        _ => event.value,
    };
    let written = rip == next || event.kind != CpuEventKind::Msr && value != event.old;
    written.then_some(CpuEvent { value, ..event })
}
