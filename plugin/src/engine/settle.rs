//! What a step leaves to do: effects that failed, faults that were met on the way, accesses in the kernel that have their answer.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::{Beside, Engine};
use crate::host::domain_host::Host;
use crate::host::explain;
use crate::host::touch::{StoppedAccess, Toucher};
use crate::host::vcpu::Vcpu;
use crate::qemu::{internals, view};
use mem_event::{Gfn, Input, Outcome, Rights, With};

impl Engine {
    /// What earlier steps left to do: failed effects are told to the engine, and the accesses that stand in the kernel ask again.
    pub fn settle(&mut self, host: &Host) {
        loop {
            if let Some(failure) = self.failures.pop() {
                let _ = self.step(host, failure);
            } else if let Some(fault) = self.met.pop() {
                // The newest first, as good as any order: each thread is stopped by one.
                explain::stopped_access(host, fault).into_iter().for_each(|access| self.stopped.add(access));
            } else if let Some(access) = self.stopped.next_to_ask() {
                self.ask_again(host, access);
            } else {
                host.set_stopping(!self.stopped.is_empty());
                // A frame may have come into being with the domain's default rights.
                if self.is_unarmed(host.gate.now()) {
                    self.arm(host);
                }
                return;
            }
        }
    }

    fn ask_again(&mut self, host: &Host, StoppedAccess { toucher, fault, access }: StoppedAccess) {
        let outcome = match toucher {
            Toucher::Vcpu(vcpu) => {
                let view = if self.domain.carries_registers() { view::view_of(vcpu.0) } else { None };
                let registers = view.map(|view| view.register_file(access.rip, false));
                let with = With { registers: registers.as_ref(), ..With::NOTHING };
                self.step_with(host, Input::Access { vcpu, access }, Beside { with, ..Beside::NOTHING })
            }
            Toucher::Foreign => self.step(host, Input::Foreign { access }),
        };
        match outcome {
            Outcome::Wait(_) | Outcome::Retry(_) | Outcome::Crashed => {}
            _ => {
                if access.rights == Rights::X
                    && !host.rights.allowed(fault.gfn).contains(Rights::R)
                    && let Toucher::Vcpu(vcpu) = toucher
                    && let Some(vcpu) = host.vcpu(vcpu.0)
                {
                    lend(vcpu, fault.gfn);
                }
                if let Toucher::Vcpu(vcpu) = toucher
                    && let Some(vcpu) = host.vcpu(vcpu.0)
                {
                    vcpu.waiting.set_busy(true);
                }
                if self.stopped.remove(toucher, fault) {
                    host.map(fault.gfn);
                }
            }
        }
    }
}

/// QEMU may read the page now, to translate what the vCPU executes. It is hidden again before the vCPU begins a block, as far as QEMU can
/// be asked for that; else with the next translation.
fn lend(vcpu: &Vcpu, gfn: Gfn) {
    vcpu.trap.lend_for_code(gfn);
    internals::call_outside(vcpu.id.0, |vcpu| {
        let hypervisor = Hypervisor::get();
        if let Some(host) = hypervisor.map(|hypervisor| &hypervisor.host)
            && let Some(gfn) = host.vcpu(vcpu).and_then(|vcpu| vcpu.trap.take_lent())
        {
            host.hide(gfn);
        }
    });
}
