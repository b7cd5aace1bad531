//! CPU events: writes to control and model-specific registers, breakpoints, single steps.
//!
//! All are reported before the instruction that they are about: a register's write before it takes effect, as in Xen, with the registers
//! as they are and the value that is to come; a breakpoint before it is delivered; a step before the instruction that follows it. A word in
//! memory that is to be written (`lmsw`) is looked at again after a wait: if it has changed, that is another write to report.
//!
//! A vCPU that waits for a write's answer leaves its block and may take an interrupt. What it meets there is not held up by the write once that
//! is answered, and the engine knows that the write was answered until the vCPU comes back to it or reports something else.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::vcpus::goes_on_behind;
use crate::host::processor::Processor;
use crate::host::shown::byte_of;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::insn::recipe::Recipe;
use crate::insn::registers::{CodeSize, Registers};
use crate::insn::special::{ControlSource, Special};
use crate::qemu::register::{Register, read_register};
use crate::qemu::view::View;
use crate::trap::wait;
use mem_event::{CpuEvent, CpuEventKind, Gfn, Gla, Outcome};

/// PE, MP, EM and TS.
const MACHINE_STATUS: u64 = 0xf;
const CR0_PE: u64 = 1;
const CR0_TS: u64 = 1 << 3;
const CR0_ET: u64 = 1 << 4;
const CR3_NO_FLUSH: u64 = 1 << 63;
const CR4_LA57: u64 = 1 << 12;
const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
/// Bytes of `int1`.
const INT1: u32 = 1;

/// A register is about to be written: reports it, where that is asked for, with the value that it will have. `Run`: the write follows.
///
/// As in Xen, what the processor refuses before it looks at a hypervisor is no write (by privilege, a register that is not there), and a
/// model-specific register's value is judged after the answer: it may be told and refused.
pub fn before_write(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) -> Go {
    let kind = match recipe.special {
        Special::WriteControl(number, _) => control_register(number).map(|(kind, _)| kind),
        Special::WriteMsr => Some(CpuEventKind::Msr),
        _ => None,
    };
    let Some(kind) = kind.filter(|kind| hypervisor.is_monitored(*kind)) else { return Go::Run };
    if view.privilege() != 0 {
        return Go::Run;
    }
    loop {
        let Some(write) = about_to_write(hypervisor, recipe, view, kind) else { return Go::Run };
        match ask(hypervisor, vcpu, write, view, write.rip.0) {
            Told::Go(Go::Run) => {}
            Told::Go(Go::Leave) => return Go::Leave,
            Told::Denied if goes_on_behind(vcpu, recipe.length, None) => return Go::Leave,
            Told::Denied => {
                eprintln!("mem-event: vCPU {} cannot leave its block: a write that was denied happens", vcpu.id);
                return Go::Run;
            }
        }
        let is_fixed = !recipe.special.writes_from_memory();
        if is_fixed || about_to_write(hypervisor, recipe, view, kind) == Some(write) {
            return Go::Run;
        }
    }
}

/// The write that the instruction is about to make; none where it faults instead.
fn about_to_write(hypervisor: &Hypervisor, recipe: &Recipe, view: &View, kind: CpuEventKind) -> Option<CpuEvent> {
    let event = |value, old, msr| CpuEvent { kind, value, old, number: msr, rip: Gla(recipe.rip(view)), gfn: Gfn(0) };
    if let Special::WriteControl(number, source) = recipe.special {
        let old = control_register(number).and_then(|(_, register)| read_register(register))?;
        return Some(event(written(hypervisor, recipe, view, (number, source), old)?, old, 0));
    }
    let low = |register| view.general(register) & 0xffff_ffff;
    let (msr, value) = (u32::try_from(low(RCX)).ok()?, low(RDX) << 32 | low(RAX));
    if is_missing(view, msr) {
        return None;
    }
    // What it was is not always known. What it is to become must then not look like it.
    let unknown = if value == 0 { u64::MAX } else { 0 };
    Some(event(value, view.model_specific(msr).unwrap_or(unknown), msr))
}

/// What a control register will hold, as QEMU will have it; none where the instruction faults.
fn written(
    hypervisor: &Hypervisor,
    recipe: &Recipe,
    view: &View,
    (number, source): (u8, ControlSource),
    old: u64,
) -> Option<u64> {
    let status = |word: u64| old & !MACHINE_STATUS | old & CR0_PE | word & MACHINE_STATUS;
    let value = match source {
        ControlSource::General(register) if recipe.code == CodeSize::Bits64 => view.general(register),
        ControlSource::General(register) => view.general(register) & 0xffff_ffff,
        ControlSource::MachineStatus(register) => status(view.general(register)),
        ControlSource::MachineStatusInMemory => {
            let processor = Processor { view, memory: &hypervisor.host.memory };
            let word = processor.bytes(recipe.operands.first()?.address(view))?;
            status(u16::from_le_bytes(word).into())
        }
        ControlSource::TaskSwitchedCleared => old & !CR0_TS,
    };
    match number {
        0 => Some(value & 0xffff_ffff | CR0_ET),
        3 if view.has_process_contexts() => Some(value & !CR3_NO_FLUSH),
        4 if (value ^ old) & CR4_LA57 != 0 && recipe.code == CodeSize::Bits64 => None,
        _ => Some(value),
    }
}

/// Whether a model-specific register is not there: those of the local APIC in its second mode, while that is off.
fn is_missing(view: &View, msr: u32) -> bool {
    const APIC: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;
    const APIC_BASE: u32 = 0x1b;
    const SECOND_MODE: u64 = 1 << 10;
    APIC.contains(&msr) && view.model_specific(APIC_BASE).is_some_and(|base| base & SECOND_MODE == 0)
}

/// Reports the event that is pending. `Run`: nothing is, or its time is over.
pub fn settle(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) -> Go {
    let event = match vcpu.trap.pending_event() {
        None => return Go::Run,
        Some(event) => {
            if is_trap_at(&event, recipe.rip(view)) && !matches!(recipe.special, Special::Trap(_)) {
                // The check of the breakpoint itself comes after that of its fetch, and must know that it was reported.
                if is_there(hypervisor, vcpu, event) {
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
    let length = if kind == CpuEventKind::Debug { INT1 } else { 0 };
    report(hypervisor, vcpu, CpuEvent { kind, value: 0, old: 0, number: length, rip: Gla(rip), gfn }, view, rip)
}

/// Reports one event, also where the vCPU only comes by, and waits for what the engine wants to wait for.
pub(super) fn report(hypervisor: &Hypervisor, vcpu: &Vcpu, event: CpuEvent, view: &View, rip: u64) -> Go {
    vcpu.trap.set_pending_event(Some(event));
    let go = match ask(hypervisor, vcpu, event, view, rip) {
        Told::Go(go) => go,
        Told::Denied => Go::Run,
    };
    // `int1` raises its exception now, which is told before it is delivered where it was not before.
    vcpu.trap.set_told_debug(event.kind == CpuEventKind::Debug && go == Go::Run);
    go
}

/// What the engine says of an event in the end.
pub(super) enum Told {
    /// It is over, or the vCPU leaves its block to wait.
    Go(Go),
    /// What it told of does not happen.
    Denied,
}

/// Asks the engine until it lets the vCPU go on.
pub(super) fn ask(hypervisor: &Hypervisor, vcpu: &Vcpu, event: CpuEvent, view: &View, rip: u64) -> Told {
    if leaves_for_flags(hypervisor, vcpu) {
        return Told::Go(Go::Leave);
    }
    loop {
        match hypervisor.cpu_event(vcpu, event, view, rip) {
            Outcome::Wait(_) | Outcome::Crashed => {
                if wait::for_engine(hypervisor, vcpu) == Go::Leave {
                    return Told::Go(Go::Leave);
                }
            }
            Outcome::Skip => return Told::Denied,
            Outcome::Alone => {
                // It is done with what came with the answer: other content, or the instruction where the breakpoint is.
                vcpu.trap.set_pending_event(None);
                if vcpu.can_leave() && hypervisor.queues_alone(vcpu) {
                    return Told::Go(Go::Leave);
                }
                hypervisor.emulated(vcpu);
                eprintln!(
                    "mem-event: vCPU {} cannot leave its block for an instruction that was to run alone with other content: it ran as it is",
                    vcpu.id
                );
                return Told::Go(Go::Run);
            }
            outcome => {
                vcpu.trap.set_pending_event(None);
                // Of a breakpoint: its instruction is fetched again, and if it is still there, that is another event.
                let again = matches!(outcome, Outcome::Retry(_)) && vcpu.state().may_leave();
                return Told::Go(if again { Go::Leave } else { Go::Run });
            }
        }
    }
}

/// Whether it is of the breakpoint, or of `int1`, at this address.
pub fn is_trap_at(event: &CpuEvent, rip: u64) -> bool {
    event.kind.trap().is_some() && event.rip.0 == rip
}

/// Whether the breakpoint of an event still stands where it was, for its vCPU.
fn is_there(hypervisor: &Hypervisor, vcpu: &Vcpu, event: CpuEvent) -> bool {
    let mut byte = [0];
    let offset = (event.rip.0 & 0xfff) as u16;
    let host = &hypervisor.host;
    let gfn = host.rights.shown_to(vcpu.id, event.gfn).map_or(event.gfn, |(other, _)| other);
    host.read(gfn, offset, &mut byte).is_ok() && byte == [byte_of(event.kind)]
}

fn control_register(number: u8) -> Option<(CpuEventKind, Register)> {
    match number {
        0 => Some((CpuEventKind::Cr0, Register::CR0)),
        3 => Some((CpuEventKind::Cr3, Register::CR3)),
        4 => Some((CpuEventKind::Cr4, Register::CR4)),
        _ => None,
    }
}
