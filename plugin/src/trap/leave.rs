//! A stopped vCPU leaves its block from a callback, and comes back: paused means that it runs nothing in between.
//!
//! QEMU would let an interrupt in there, whose handler writes a frame on the stack and runs, while a consumer looks at what it takes for a
//! paused vCPU. So interrupts are inhibited for one instruction, as after `sti`.
//!
//! That is the mark which `sti` and a load of SS themselves set for the instruction behind them, and QEMU sets it but once in a row: such an
//! instruction, run under it, would let an interrupt in between a stack's two halves. Before one of these a vCPU leaves plainly. So does one
//! that stands at a checkpoint, as one that a debugger stopped.

use crate::engine::hypervisor::Hypervisor;
use crate::host::instruction;
use crate::host::nested::address_space;
use crate::host::state::State;
use crate::qemu::leaving;
use crate::qemu::view::View;

/// The vCPU of this thread is about to leave its block.
#[cold]
pub fn block(vcpu: u32, view: &View) {
    let Some(host) = Hypervisor::get().map(|hypervisor| &hypervisor.host) else { return };
    let Some(State::Left { before }) = host.vcpu(vcpu).map(|vcpu| vcpu.state()) else { return };
    let subject = |space| instruction::subject(host, view, space, before);
    if !address_space(view.paging_mode(), view).and_then(subject).is_some_and(|subject| subject.holds_interrupts_off())
    {
        leaving::without_interrupts(view);
    }
}
