//! Touches that are provoked, so that unwinding can be held against notes: pages that may be used freely are taken out of QEMU's mapping
//! for a moment.
//!
//! The engine hears nothing of them. A page is provoked, and its touch let go on, under the engine's lock: so the rights by which
//! that is done are those in force.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::host::domain_host::report;
use crate::host::instrumentation;
use crate::host::touch::{StoppedAccess, Toucher};
use crate::host::witness::Standing;
use mem_event::{Gfn, Rights};

impl Engine {
    /// The access is a provoked one: it goes on, without a step.
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
            && vcpu.is_none_or(|vcpu| vcpu.waiting.pending_retry().is_none());
        if passes {
            host.map(fault.gfn);
        }
        passes
    }
}

impl Hypervisor {
    /// A thread stopped in the kernel, at this access; says whether somebody must hear of it.
    pub(super) fn stopped(&self, access: StoppedAccess) -> bool {
        let mut engine = self.engine();
        if engine.passes_provoked(self, access) {
            return false;
        }
        engine.stands(&self.host, access);
        engine.settle(&self.host);
        true
    }

    /// Takes those of the frames out of QEMU's mapping that are free to be used and are there again.
    pub fn provoke(&self, frames: &[Gfn]) {
        let mut engine = self.engine();
        for gfn in frames {
            let is_free = self.host.rights.allowed(*gfn).contains(Rights::RWX) && !engine.stopped.is_touched(*gfn);
            if is_free && engine.provoked.takes(*gfn) {
                report("unmap", *gfn, self.host.memory.unmap(*gfn, 1));
            }
        }
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
