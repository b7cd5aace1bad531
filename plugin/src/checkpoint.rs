//! Checkpoints: a guest says "here", and the vCPU stands until a client lets it go on.

use crate::hypervisor::Hypervisor;
use crate::park::Go;
use crate::qemu::View;
use crate::recipe::Recipe;
use crate::registers::Registers;
use mem_event::message::Notice;

const RSI: u8 = 6;
const RDI: u8 = 7;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// A vCPU is at a checkpoint, for the first time or again after it left its block. Called by the shim.
pub fn reached(vcpu: u32, fetch: &Recipe, view: &View) -> Go {
    let Some(hypervisor) = Hypervisor::get() else { return Go::Run };
    let Some(vcpu) = hypervisor.vcpu(vcpu) else { return Go::Run };
    let rip = fetch.rip(view);
    if !vcpu.at_checkpoint() {
        vcpu.checkpoint.stop();
        vcpu.arrive(true);
        let notice = Notice::Checkpoint {
            vcpu: vcpu.id,
            number: view.general(RDI),
            arguments: [view.general(RSI), view.general(RDX), view.general(RCX)],
        };
        if hypervisor.notify_subscribers(&notice) == 0 {
            vcpu.checkpoint.release();
        }
    }
    let go = vcpu.park_on(&vcpu.checkpoint);
    if go == Go::Run {
        vcpu.arrive(false);
    }
    vcpu.goes(go, rip)
}
