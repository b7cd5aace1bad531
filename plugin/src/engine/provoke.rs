//! Touches that are provoked, so that unwinding can be held against notes: pages that may be used freely are taken out of QEMU's mapping
//! for a moment.
//!
//! Code that keeps to few pages touches them by the slow path first, and then never again until the next round. Its stack is in use all the time:
//! while touches by generated code are wanting, each provoked touch takes the frame of its vCPU's stack out too.
//!
//! The engine hears nothing of them. A page is provoked, and its touch let go on, under the engine's lock: so the rights by which
//! that is done are those in force.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::host::domain_host::report;
use crate::host::touch::{StoppedAccess, Toucher};
use crate::host::witness::{self, Standing};
use crate::host::{explain, instrumentation};
use crate::memory::userfault::UffdFault;
use crate::qemu::unwinding::Kind;
use mem_event::{Gfn, Rights};

impl Engine {
    /// The access is a provoked one: it goes on, without a step, as if the page had been there. Also where its vCPU waits, or has to ask again, for
    /// another frame: to the engine such an access would be that vCPU's next, and it would be stopped anew by the one that it waits for.
    fn passes_provoked(
        &mut self,
        hypervisor: &Hypervisor,
        StoppedAccess { toucher, fault, .. }: StoppedAccess,
    ) -> bool {
        let host = &hypervisor.host;
        let vcpu = if let Toucher::Vcpu(vcpu) = toucher { host.vcpu(vcpu.0) } else { None };
        let passes = self.provoked.is_touched(fault.gfn)
            && host.rights.allowed(fault.gfn).contains(Rights::RW)
            && !self.stopped.is_touched(fault.gfn)
            && !vcpu.is_some_and(|vcpu| vcpu.waiting.pending_retry().is_some_and(|retry| retry.is_of(fault.gfn)));
        if passes {
            if let Some(vcpu) = vcpu.filter(|_| witness::lacks(Kind::Code))
                && let Some(stack) = explain::stack_of(host, vcpu).filter(|stack| *stack != fault.gfn)
            {
                self.provoke(hypervisor, stack);
            }
            host.map(fault.gfn);
        }
        passes
    }

    /// Takes the frame out of QEMU's mapping if it is free to be used and is there again.
    fn provoke(&mut self, hypervisor: &Hypervisor, gfn: Gfn) {
        let host = &hypervisor.host;
        let is_free = host.memory.offset(gfn).is_some()
            && host.rights.allowed(gfn).contains(Rights::RWX)
            && !self.stopped.is_touched(gfn);
        if is_free && self.provoked.takes(gfn) {
            report("unmap", gfn, host.memory.unmap(gfn, 1));
        }
    }
}

impl Hypervisor {
    /// A thread stopped in the kernel, at this access; says whether somebody must hear of it.
    pub(super) fn stopped(&self, fault: UffdFault, access: StoppedAccess) -> bool {
        let mut engine = self.engine();
        if self.host.memory.is_old(&fault) || engine.passes_provoked(self, access) {
            return false;
        }
        engine.stands(&self.host, access);
        engine.settle(&self.host);
        true
    }

    /// Takes those of the frames out that are free to be used and are there again.
    pub fn provoke(&self, frames: &[Gfn]) {
        let mut engine = self.engine();
        frames.iter().for_each(|gfn| engine.provoke(self, *gfn));
    }

    /// Notes are not needed any more, if that is proven; says whether blocks without them are on their way. Not while an access stands in
    /// the kernel, as in [`Hypervisor::disarm`].
    pub fn gives_up_notes(&self) -> bool {
        let engine = self.engine();
        let gives_up = Standing::now() == Standing::Proven && engine.stopped.is_empty();
        if gives_up {
            instrumentation::give_up_notes();
        }
        gives_up
    }
}
