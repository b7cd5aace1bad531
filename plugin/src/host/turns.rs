//! vCPUs that one thread runs by turns (`thread=single`): while one waits, the others run.
//!
//! QEMU goes on to the next vCPU when the one that it runs is out of its block and some thread has asked for the vCPUs. So one that waits keeps its
//! thread for as long as most answers take, and then gives way: it leaves its block, and comes back to its instruction when its turn comes. There it
//! gives way at once as long as another one could run. When it may go on the others are asked for its turn.
//!
//! Where instructions are counted the guest is to do the same in each run, however long an answer takes. While one waits its time stands, so it keeps
//! the thread much longer there: until the answer seems to wait for another vCPU. Which of them runs when is the host's to say from then on.

use crate::host::domain_host::Host;
use crate::host::vcpu::Vcpu;
use crate::qemu::{current, internals, outside};

/// For so many milliseconds one keeps its thread where instructions are counted, unless another one has given way.
const LONG: u32 = 1000;

/// Has QEMU look at which vCPU is next.
fn next(vcpu: &Vcpu) {
    outside::later(vcpu.id.0, || {});
}

impl Host {
    /// A vCPU that waits is about to leave its block, from its callback or from the kernel: the others of its thread run before it comes back.
    pub fn gives_way(&self, vcpu: &Vcpu) {
        let is_counted = internals::counts_instructions();
        let is_long = || vcpu.waiting.waited() >= LONG || self.vcpus.iter().any(Vcpu::has_given_way);
        if current::runs_all() && (!is_counted || is_long()) {
            vcpu.gives_way();
            next(vcpu);
        }
    }

    /// Whether a vCPU that waits is to leave its block at once, because another one of its thread has something to do.
    pub fn is_to_give_way(&self, vcpu: &Vcpu) -> bool {
        let could_run = |other: &Vcpu| other.id != vcpu.id && other.could_run();
        current::runs_all() && outside::anything_is_due()
            || vcpu.has_given_way() && !self.is_paused() && self.vcpus.iter().any(could_run)
    }

    /// A vCPU may go on: if it had given way, the one that runs in its place, or waits there, makes room.
    pub fn makes_room_for(&self, vcpu: &Vcpu) {
        if vcpu.gives_way_no_more() {
            next(vcpu);
            self.vcpus.iter().filter(|other| other.waits_in_callback()).for_each(Vcpu::wake);
        }
    }

    /// The vCPUs that the thread of this one runs.
    pub fn of_the_thread_of<'a>(&'a self, vcpu: &'a Vcpu) -> impl Iterator<Item = &'a Vcpu> {
        self.vcpus.iter().filter(move |other| other.id == vcpu.id || current::runs_all() && other.has_started())
    }

    /// As many cores as vCPUs want.
    pub fn wanted_cores(&self) -> usize {
        let wanted = self.vcpus.iter().filter(|vcpu| vcpu.waiting.is_busy()).count();
        if current::runs_all() { wanted.min(1) } else { wanted }
    }
}
