//! Responses wake, and vCPUs go on where they slept.

use super::events::Pause;
use crate::control::Ring;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::event::Flags;
use crate::flow::Try;
use crate::historic::{Sleep, Sleeper};
use crate::number::{Gfn, VcpuId};
use crate::registers::Registers;
use crate::vcpu::Wait;

impl Domain {
    /// The responses that the poll saw.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_by_policy(&mut self, ring: Ring, effects: &mut Effects) {
        while let Some(answer) = self.channels[ring.index()].take(effects, self.record) {
            self.room = true;
            if let Some((flow, stops, free)) = self.policy(ring) {
                flow.taken(free, stops);
            }
            self.rouse(effects);
            let vcpu = VcpuId(answer.vcpu);
            let was_paused = self.vcpus.get(vcpu.0 as usize).is_some_and(|it| it.is_paused_by(ring));
            if !answer.skip && !answer.flags.contains(Flags::DUMMY) {
                self.respond(ring, answer, effects);
            }
            if was_paused && !self.vcpu(vcpu).is_paused_by(ring) {
                self.history().stops.answer(vcpu);
            }
            if let Some((flow, stops, free)) = self.policy(ring) {
                flow.answered(free, stops);
            }
            self.rouse(effects);
        }
    }

    /// Those that nothing stops any more are told. A vCPU that runs already was told by the answer itself.
    pub(super) fn rouse(&mut self, effects: &mut Effects) {
        let woken = std::mem::take(&mut self.history().stops.woken);
        for vcpu in woken {
            if self.vcpu(vcpu).wait == Wait::Nothing {
                continue;
            }
            let sleeper = self.history().sleepers.get(&vcpu).copied();
            let it = self.vcpu(vcpu);
            it.wait = Wait::Nothing;
            match sleeper {
                Some(Sleeper { place: Sleep::Flag, .. }) => drop(self.history().sleepers.remove(&vcpu)),
                Some(Sleeper { ring, .. }) => it.slot = Some(ring),
                None => {}
            }
            effects.push(|| Effect::Wake(vcpu));
        }
    }

    /// A woken vCPU goes on where it slept; what it does instead of going on, if it does not.
    #[cold]
    #[inline(never)]
    pub(crate) fn go_on(
        &mut self,
        vcpu: VcpuId,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Option<Outcome> {
        let Sleeper { ring, place } = self.historic.as_mut()?.sleepers.remove(&vcpu)?;
        self.vcpu(vcpu).slot = None;
        let Sleep::Put(held) = place else {
            // It has the slot before it looks whether it still needs one; if not, giving it back wakes the next.
            return match self.claim_by_policy(vcpu, ring)? {
                Ok(_) => {
                    self.vcpu(vcpu).slot = Some(ring);
                    None
                }
                Err(outcome) => Some(outcome),
            };
        };
        let pause = if held.pauses_after { Pause::After } else { Pause::Already };
        let request = held.request.request();
        if request.flags.contains(Flags::VCPU_PAUSED) {
            self.pause(vcpu, ring, Gfn(request.event.subject()));
        }
        self.post(ring, request, registers, pause, effects);
        self.has_posted(vcpu)
    }

    /// A slot is given back that a woken vCPU claimed and did not need; one that has not claimed yet passes its wake on.
    #[cold]
    #[inline(never)]
    pub(crate) fn cancel_by_policy(&mut self, vcpu: VcpuId, ring: Ring, effects: &mut Effects) {
        // By now it may sleep for something else; then it had gone on, and its claim is held.
        let runs = self.vcpu(vcpu).wait == Wait::Nothing;
        let sleeper = self.history().sleepers.get(&vcpu).copied().filter(|_| runs);
        if sleeper.is_some() {
            self.history().sleepers.remove(&vcpu);
            self.vcpu(vcpu).reported = None;
        }
        if let Some((flow, stops, free)) = self.policy(ring) {
            let holds = match sleeper {
                None => Some(false),
                Some(Sleeper { place: Sleep::Claim, .. }) => (flow.claim_foreign(free) == Try::Slot).then_some(true),
                Some(_) => {
                    flow.leave(vcpu, true, stops);
                    None
                }
            };
            if let Some(foreign) = holds {
                flow.cancel(foreign, free, stops);
            }
        }
        self.rouse(effects);
    }

    /// A vCPU leaves where it sleeps, or would have gone on.
    pub(crate) fn leave_by_policy(&mut self, vcpu: VcpuId, effects: &mut Effects) {
        let Some(historic) = &mut self.historic else { return };
        historic.ballooned.remove(&vcpu);
        if self.vcpus[vcpu.0 as usize].wait == Wait::Nothing {
            return;
        }
        let Some(Sleeper { ring, place }) = historic.sleepers.remove(&vcpu) else { return };
        if let Some((flow, stops)) = historic.parts(ring) {
            flow.leave(vcpu, matches!(place, Sleep::Put(_)), stops);
            stops.release(vcpu);
        }
        let it = self.vcpu(vcpu);
        // What it would have reported is not out, and never will be.
        (it.wait, it.reported) = (Wait::Nothing, None);
        self.rouse(effects);
    }
}
