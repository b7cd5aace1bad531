//! Instructions that a listener may be told of before they are executed, as a hypervisor that has them exit to it.
//!
//! An answer that lets the vCPU go on where it is has it execute the instruction. One that sets registers puts it elsewhere, as a rule behind the
//! instruction.

use crate::engine::hypervisor::Hypervisor;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::insn::recipe::Recipe;
use crate::insn::registers::Registers as _;
use crate::insn::special::Special;
use crate::qemu::view::View;
use crate::trap::events::{Told, ask};
use mem_event::{CpuEvent, CpuEventKind, Gfn, Gla};

const RAX: u8 = 0;
const RCX: u8 = 1;

/// Such an instruction is about to be executed: reports it, where that is asked for. `Run`: it follows.
pub fn before(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) -> Go {
    let Some(event) = told(recipe, view).filter(|event| hypervisor.is_monitored(event.kind)) else { return Go::Run };
    match ask(hypervisor, vcpu, event, view, event.rip.0) {
        Told::Go(go) => go,
        Told::Denied => Go::Run,
    }
}

fn told(recipe: &Recipe, view: &View) -> Option<CpuEvent> {
    let rip = Gla(recipe.rip(view));
    let low = |register| view.general(register) & 0xffff_ffff;
    match recipe.special {
        Special::Cpuid => {
            let (kind, number) = (CpuEventKind::Cpuid, recipe.length.into());
            Some(CpuEvent { kind, value: low(RAX), old: low(RCX), number, rip, gfn: Gfn(0) })
        }
        _ => None,
    }
}
