//! A ring's flow control is set, and the ring begins and ends under it.

use crate::control::Ring;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::errno::Errno;
use crate::flow::{FlowKind, Stops};
use crate::historic::Historic;
use crate::modes::Monitor;
use crate::number::VcpuId;
use crate::ring_state::RingPhase;
use crate::vcpu::Wait;

impl Domain {
    /// `Control::SetFlow`.
    pub(crate) fn set_flow(&mut self, ring: Ring, kind: FlowKind) -> Outcome {
        let waits = |wait: Wait| wait == Wait::Queued(ring) || wait == Wait::Paused(ring);
        let busy = self.vcpus.iter().any(|it| waits(it.wait) || it.slot == Some(ring));
        if self.channel(ring).state.phase != RingPhase::Absent || busy {
            return Outcome::Refused(Errno::EBUSY, format!("the {ring} ring is in use, or vCPUs wait for it"));
        }
        let mut historic = self.historic.take().unwrap_or_else(|| Box::new(Historic::new(self.config.vcpus)));
        historic.choose(ring, kind);
        // Whoever goes back to `queue` is rid of all of it.
        self.historic = (!historic.is_idle()).then_some(historic);
        Outcome::Proceed
    }

    /// The ring begins; those that waited for one go on, where the policy says so.
    pub(crate) fn enable_by_policy(&mut self, ring: Ring, effects: &mut Effects) {
        let slots = self.channel(ring).state.slots;
        if let Some((flow, stops, _)) = self.policy(ring) {
            flow.enable(slots, stops);
        }
        self.rouse(effects);
        self.room = true;
    }

    /// `Control::Disable`, not draining. vCPUs whose events are out stay where they are.
    pub(crate) fn disable_by_policy(&mut self, ring: Ring, effects: &mut Effects) -> Outcome {
        let busy = self.policy(ring).is_some_and(|(flow, stops, _)| flow.disable(stops).is_err());
        if ring == Ring::Access && (!busy || self.flow(ring) == FlowKind::Blocked2012) {
            // In Xen 4.17 also where it is refused.
            self.monitor = Monitor::default();
        }
        if busy {
            return Outcome::Refused(Errno::EBUSY, format!("vCPUs sleep on the {ring} ring's wait queue"));
        }
        self.rouse(effects);
        self.channel(ring).close();
        match ring {
            Ring::Paging => self.forget_pager(effects),
            Ring::Access => self.vcpus.iter_mut().for_each(|it| it.single_step = false),
            Ring::Sharing => {}
        }
        self.room = true;
        effects.list.push(Effect::Closed(ring));
        Outcome::Proceed
    }

    /// All that this ring stops go on, whatever its policy: it ended by draining, or the domain did.
    #[cold]
    pub(crate) fn wake_all_by_policy(&mut self, ring: Ring, effects: &mut Effects) {
        for vcpu in (0..self.config.vcpus).map(VcpuId) {
            let sleeps = self.history().sleepers.get(&vcpu).is_some_and(|it| it.ring == ring);
            let it = self.vcpu(vcpu);
            // A claim is void with its ring, also one of a vCPU that runs.
            it.slot.take_if(|slot| *slot == ring);
            if !sleeps && !it.is_paused_by(ring) {
                continue;
            }
            it.reported = None;
            let was = std::mem::take(&mut it.wait);
            self.history().sleepers.remove(&vcpu);
            self.history().stops.release(vcpu);
            if was != Wait::Nothing {
                effects.list.push(Effect::Wake(vcpu));
            }
        }
        let (slots, kind) = (self.channel(ring).state.slots, self.flow(ring));
        self.history().choose(ring, kind);
        if let Some((flow, _, _)) = self.policy(ring)
            && slots > 0
        {
            flow.enable(slots, &mut Stops::default());
        }
    }
}
