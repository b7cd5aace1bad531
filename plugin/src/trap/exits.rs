//! Instructions that a listener may be told of before they are executed, as a hypervisor that has them exit to it.
//!
//! An answer that lets the vCPU go on where it is has it execute the instruction. One that sets registers puts it elsewhere, as a rule behind the
//! instruction. A guest's request is no instruction of the processor's: the vCPU goes on behind it, as a hypervisor would let it.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::vcpus::goes_on_behind;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::insn::descriptor::DescriptorAccess;
use crate::insn::recipe::Recipe;
use crate::insn::registers::{CodeSize, Registers as _};
use crate::insn::special::Special;
use crate::qemu::view::View;
use crate::trap::events::{Told, ask};
use mem_event::cpu_events::packed_port_access;
use mem_event::{CpuEvent, CpuEventKind, DescriptorTable, Gfn, Gla};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;
const RDI: u8 = 7;
/// Without it there is no XCR0.
const CR4_OSXSAVE: u64 = 1 << 18;
/// `__HYPERVISOR_hvm_op`, in EAX, and `HVMOP_guest_request_vm_event`, its first argument.
const HVM_OP: u64 = 34;
const GUEST_REQUEST: u64 = 24;

/// Such an instruction is about to be executed: reports it, where that is asked for. `Run`: it follows.
pub fn before(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) -> Go {
    let Some(event) = told(recipe, view).filter(|event| hypervisor.is_monitored(event.kind)) else { return Go::Run };
    match ask(hypervisor, vcpu, event, view, event.rip.0) {
        Told::Go(Go::Run) if event.kind == CpuEventKind::GuestRequest => returns(vcpu, recipe),
        Told::Go(go) => go,
        Told::Denied => Go::Run,
    }
}

/// The call has its result, and the vCPU goes on behind it.
fn returns(vcpu: &Vcpu, recipe: &Recipe) -> Go {
    if goes_on_behind(vcpu, recipe.length, Some(0)) {
        return Go::Leave;
    }
    eprintln!("mem-event: vCPU {} cannot leave its block: its request is an invalid instruction to it", vcpu.id);
    Go::Run
}

/// What there is to tell; nothing of an instruction that the processor refuses before it looks at a hypervisor.
fn told(recipe: &Recipe, view: &View) -> Option<CpuEvent> {
    let rip = recipe.rip(view);
    let event = |kind, value, old, number| CpuEvent { kind, value, old, number, rip: Gla(rip), gfn: Gfn(0) };
    let low = |register| view.general(register) & 0xffff_ffff;
    match recipe.special {
        Special::Cpuid => Some(event(CpuEventKind::Cpuid, low(RAX), low(RCX), recipe.length.into())),
        Special::WriteExtended => {
            let is_there = view.privilege() == 0 && view.paging_mode().cr4 & CR4_OSXSAVE != 0 && low(RCX) == 0;
            let value = low(RDX) << 32 | low(RAX);
            is_there.then(|| event(CpuEventKind::Xcr0, value, view.enabled_states().unwrap_or(!value), 0))
        }
        Special::Hypercall => {
            let argument = if recipe.code == CodeSize::Bits64 { view.general(RDI) } else { low(RBX) };
            let is_request = view.privilege() == 0 && low(RAX) == HVM_OP && argument == GUEST_REQUEST;
            is_request.then(|| event(CpuEventKind::GuestRequest, 0, 0, 0))
        }
        Special::Descriptor(access) => {
            let page = if access.is_relative { rip & !0xfff } else { 0 };
            let (value, old) = (access.information.into(), page.wrapping_add(access.displacement));
            let number = access.table.packed(access.is_load);
            may_access(access, view).then(|| event(CpuEventKind::Descriptor, value, old, number))
        }
        Special::Port(access) => {
            let number = packed_port_access(access.bytes, access.is_read, access.is_string);
            view.may_use_ports(rip).then(|| event(CpuEventKind::Io, access.number(view).into(), 0, number))
        }
        _ => None,
    }
}

/// Whether it is no fault: of a program a load, or under CR4.UMIP a store, of the task's and LDT's registers in real mode.
fn may_access(access: DescriptorAccess, view: &View) -> bool {
    const CR4_UMIP: u64 = 1 << 11;
    let is_of_real_mode = matches!(access.table, DescriptorTable::Gdtr | DescriptorTable::Idtr);
    let takes_kernel = access.is_load || view.paging_mode().cr4 & CR4_UMIP != 0;
    (is_of_real_mode || view.is_protected()) && (view.privilege() == 0 || !takes_kernel)
}
