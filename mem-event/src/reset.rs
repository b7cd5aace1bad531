//! The machine begins anew, by a reset or with a state that was saved: nobody stands any more where he stood.
//!
//! Waits are over, and what was reserved or granted is given back. The requests of those that were stopped stay with their consumers, and their
//! slots are free when they are answered; to whoever stands by then the answer is nothing. So a request of the past counts as a foreign
//! one. What a pager brings back comes back.

use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::number::VcpuId;
use crate::vcpu::{Vcpu, Wait};

impl Domain {
    /// Whether a vCPU waits for, was promised or is about to do something that a reset ends.
    #[must_use]
    pub fn has_unfinished(&self) -> bool {
        self.vcpus.iter().any(|it| {
            let Vcpu { wait, slot, frame, answered, emulation, .. } = it;
            *wait != Wait::Nothing || slot.is_some() || *frame || answered.is_some() || emulation.is_some()
        })
    }

    /// `Input::Reset`.
    pub(crate) fn reset(&mut self, effects: &mut Effects) -> Outcome {
        let vcpus = || (0..).map(VcpuId);
        let count = self.vcpus.len();
        let waited: Vec<bool> = self.vcpus.iter().map(|it| it.wait != Wait::Nothing).collect();
        // In this order: what comes free is promised to nobody who does not want it any more.
        vcpus().take(count).for_each(|vcpu| self.leave_queue(vcpu, effects));
        vcpus().take(count).for_each(|vcpu| self.return_grants(vcpu, effects));
        for (vcpu, waited) in vcpus().zip(waited) {
            let it = self.vcpu(vcpu);
            let wait = std::mem::take(&mut it.wait);
            *it = Vcpu { single_step: it.single_step, view: it.view, ..Vcpu::default() };
            if let Wait::Paused(ring) = wait {
                self.channel(ring).is_past(vcpu);
            }
            if waited {
                effects.list.push(Effect::Wake(vcpu));
            }
        }
        self.end_step(effects);
        Outcome::Proceed
    }
}
