//! Rings and the domain begin and end: enable, disable, a consumer lost, crash, destroy.

use crate::control::{Layout, NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::errno::Errno;
use crate::event::Flags;
use crate::life::Life;
use crate::modes::Monitor;
use crate::number::VcpuId;
use crate::page::RingPage;
use crate::ring_state::RingPhase;
use crate::vcpu::Wait;

impl Domain {
    /// `Control::Enable`, refused in Xen's order. Where a consumer was lost, the next one takes its ring up as it stands: what was
    /// not answered is on the new page.
    pub(crate) fn enable(
        &mut self,
        (ring, layout, slots): (Ring, Layout, u32),
        page: Option<&RingPage>,
        effects: &mut Effects,
    ) -> Outcome {
        if self.life == Life::Dying {
            return Outcome::Proceed;
        }
        if let Some((errno, sentence)) = self.lacks_means(ring) {
            return Outcome::Refused(errno, sentence.to_string());
        }
        let state = &self.channel(ring).state;
        if !matches!(state.phase, RingPhase::Absent | RingPhase::Lost) {
            return Outcome::Refused(Errno::EBUSY, format!("the {ring} ring is, or was, in use by somebody"));
        }
        let most = layout.max_slots();
        let slots = if slots == 0 { most } else { slots };
        if !slots.is_power_of_two() || slots > most {
            return Outcome::Refused(Errno::EINVAL, format!("{slots} slots where a power of two up to {most} fits"));
        }
        let left = state.outstanding.len();
        if left > slots as usize {
            return Outcome::Refused(
                Errno::EINVAL,
                format!("{left} unanswered requests do not fit into {slots} slots"),
            );
        }
        if let Err(sentence) = self.channel(ring).open(layout, slots, page) {
            return Outcome::Refused(Errno::EINVAL, sentence);
        }
        self.take_up(ring, left, effects);
        Outcome::Proceed
    }

    fn lacks_means(&self, ring: Ring) -> Option<(Errno, &'static str)> {
        if !self.config.hap {
            return Some((Errno::ENODEV, "the domain has no hardware-assisted paging"));
        }
        if ring == Ring::Paging && self.config.passthrough {
            return Some((Errno::EMLINK, "a device is passed through to the domain"));
        }
        if ring == Ring::Paging && self.config.populate_on_demand {
            return Some((Errno::EXDEV, "the domain was built with populate-on-demand entries"));
        }
        None
    }

    /// The new consumer gets what its predecessor left, and the vCPUs that waited for one go on.
    fn take_up(&mut self, ring: Ring, left: usize, effects: &mut Effects) {
        for _ in 0..left {
            if let Some((slot, request)) = self.channel(ring).put_again()
                && self.record
            {
                effects.list.push(Effect::Requested { ring, slot, request });
            }
        }
        if left > 0 {
            effects.list.push(Effect::Notify(ring));
        }
        if self.is_historic(ring) {
            return self.enable_by_policy(ring, effects);
        }
        for vcpu in (0..self.config.vcpus).map(VcpuId) {
            if !self.is_due_an_answer(vcpu, ring) {
                self.unpause(vcpu, ring, effects);
            }
        }
        self.grant_slots(ring, effects);
        if ring == Ring::Sharing {
            self.wake_frame_waiters(effects);
        }
    }

    fn is_due_an_answer(&self, vcpu: VcpuId, ring: Ring) -> bool {
        let mut outstanding = self.channels[ring.index()].state.outstanding.iter();
        outstanding.any(|request| request.vcpu() == vcpu.0 && request.flags().contains(Flags::VCPU_PAUSED))
    }

    /// `Control::Disable`. Without draining, vCPUs whose events were not answered are woken and retry. What the access ring's consumer
    /// monitored ends with its ring, at once (Xen's b848dc83cc, 985ba41f66): else the guest would stand at its next such event, with
    /// nobody to answer, and the next consumer would be told what it never asked for. A consumer that is lost leaves it to its successor.
    pub(crate) fn disable(&mut self, ring: Ring, drain: bool, effects: &mut Effects) -> Outcome {
        if self.life == Life::Dying {
            return Outcome::Proceed;
        }
        let historic = self.is_historic(ring);
        let state = &self.channel(ring).state;
        match state.phase {
            RingPhase::Absent => return Outcome::Refused(Errno::EINVAL, format!("there is no {ring} ring")),
            _ if historic && !drain => return self.disable_by_policy(ring, effects),
            RingPhase::Live | RingPhase::Draining if !drain && !state.flow.waiters.is_empty() => {
                let count = state.flow.waiters.len();
                return Outcome::Refused(Errno::EBUSY, format!("{count} vCPUs wait for a slot of the {ring} ring"));
            }
            _ => {}
        }
        if ring == Ring::Access {
            self.monitor = Monitor::default();
        }
        if drain && self.channel(ring).has_consumer() {
            self.channel(ring).drain();
            self.revoke_grants(ring);
            self.room = true;
        }
        self.take_responses(ring, None, effects);
        let state = &self.channel(ring).state;
        let waits = drain && state.phase == RingPhase::Draining && !state.outstanding.is_empty();
        if state.phase != RingPhase::Absent && !waits {
            self.end_ring(ring, effects);
        }
        Outcome::Proceed
    }

    /// The ring is no more: no vCPU is left waiting for it.
    pub(crate) fn end_ring(&mut self, ring: Ring, effects: &mut Effects) {
        self.channel(ring).close();
        self.revoke_grants(ring);
        match ring {
            Ring::Paging if self.life != Life::Dying => self.forget_pager(effects),
            Ring::Access => self.vcpus.iter_mut().for_each(|it| it.single_step = false),
            Ring::Paging | Ring::Sharing => {}
        }
        self.wake_all(ring, effects);
        self.room = true;
        effects.list.push(Effect::Closed(ring));
    }

    fn wake_all(&mut self, ring: Ring, effects: &mut Effects) {
        if self.is_historic(ring) {
            return self.wake_all_by_policy(ring, effects);
        }
        for vcpu in (0..self.config.vcpus).map(VcpuId) {
            self.unpause(vcpu, ring, effects);
        }
        self.wake_queue(ring, effects);
    }

    fn wake_queue(&mut self, ring: Ring, effects: &mut Effects) {
        while let Some(vcpu) = self.channel(ring).state.flow.waiters.pop_front() {
            self.vcpu(vcpu).wait = Wait::Nothing;
            effects.list.push(Effect::Wake(vcpu));
        }
    }

    /// Promises of slots on a ring that can no longer keep them; their holders are awake and will ask again.
    fn revoke_grants(&mut self, ring: Ring) {
        for it in &mut self.vcpus {
            if it.slot == Some(ring) {
                it.slot = None;
            }
        }
        if let Some(historic) = &mut self.historic {
            // Whoever was woken there begins anew.
            historic.sleepers.retain(|vcpu, sleeper| {
                let it = &mut self.vcpus[vcpu.0 as usize];
                let stays = sleeper.ring != ring || it.wait != Wait::Nothing;
                it.reported.take_if(|_| !stays);
                stays
            });
        }
    }

    /// `Input::ConsumerLost`. What it answered before it went counts; what it did not answer waits for a successor.
    pub(crate) fn consumer_lost(&mut self, ring: Ring, effects: &mut Effects) -> Outcome {
        let was = self.channel(ring).state.phase.clone();
        if was == RingPhase::Live && self.is_historic(ring) {
            // The sources never hear of it: the ring stays, and fills up.
            self.take_responses(ring, None, effects);
            self.end_step(effects);
            return Outcome::Proceed;
        }
        if was == RingPhase::Live {
            // From here on no slot is handed over: a vCPU would leave the queue for one that it could not use.
            self.channel(ring).state.phase = RingPhase::Lost;
        }
        self.take_responses(ring, None, effects);
        match self.channel(ring).state.phase {
            RingPhase::Draining => self.end_ring(ring, effects),
            RingPhase::Lost if was == RingPhase::Lost => {}
            RingPhase::Absent => {}
            _ => self.lose_consumer(ring, RingPhase::Lost, effects),
        }
        self.end_step(effects);
        Outcome::Proceed
    }

    /// The ring stands without a consumer, and those it stopped do what its setting says.
    pub(crate) fn lose_consumer(&mut self, ring: Ring, phase: RingPhase, effects: &mut Effects) {
        self.channel(ring).lose_consumer(phase);
        self.revoke_grants(ring);
        self.follow_policy(ring, effects);
        if ring == Ring::Sharing {
            // Without a helper they wait for frames, not for slots.
            self.wake_queue(ring, effects);
        }
    }

    /// Applies the setting for "no consumer" to those who already wait for one.
    pub(crate) fn follow_policy(&mut self, ring: Ring, effects: &mut Effects) {
        // Foreign callers that wait for an answer retry: the ring's setting is for them too.
        self.room = true;
        let state = &self.channel(ring).state;
        if matches!(state.phase, RingPhase::Live | RingPhase::Draining) {
            return;
        }
        let stopped = |wait: Wait| wait == Wait::Paused(ring) || wait == Wait::Queued(ring);
        let waiter = self.vcpus.iter().any(|it| stopped(it.wait));
        match self.channel(ring).state.policy {
            NoConsumer::Wait => {}
            NoConsumer::Crash if waiter => {
                let _ = self.crash(format!("vCPUs wait for the {ring} ring, whose consumer is gone"), effects);
            }
            NoConsumer::Crash => {}
            NoConsumer::Relax => {
                self.channel(ring).forget_paused();
                self.wake_all(ring, effects);
            }
        }
    }

    /// `Control::SetNoConsumer`.
    pub(crate) fn set_no_consumer(&mut self, ring: Ring, policy: NoConsumer, effects: &mut Effects) -> Outcome {
        if policy == NoConsumer::Relax && ring != Ring::Access {
            return Outcome::Refused(Errno::EINVAL, format!("the {ring} ring has no pages to relax"));
        }
        self.channel(ring).state.policy = policy;
        self.follow_policy(ring, effects);
        if ring == Ring::Sharing {
            self.wake_frame_waiters(effects);
        }
        Outcome::Proceed
    }

    /// The domain crashes. Every waiting vCPU is woken to be told.
    pub(crate) fn crash(&mut self, why: String, effects: &mut Effects) -> Outcome {
        if self.life == Life::Alive {
            self.life = Life::Crashed(why.clone());
            effects.list.push(Effect::Crash(why));
            self.wake_everybody(effects);
        }
        Outcome::Crashed
    }

    fn wake_everybody(&mut self, effects: &mut Effects) {
        for ring in Ring::ALL {
            self.wake_all(ring, effects);
        }
        self.wake_frame_waiters(effects);
        for vcpu in (0..self.config.vcpus).map(VcpuId) {
            self.return_grants(vcpu, effects);
        }
        self.foreign_waits = true;
        self.room = true;
    }

    /// `Input::Destroy`: every vCPU is woken, every ring ends.
    pub(crate) fn destroy(&mut self, effects: &mut Effects) -> Outcome {
        if self.life == Life::Dying {
            return Outcome::Proceed;
        }
        self.life = Life::Dying;
        self.wake_everybody(effects);
        for ring in Ring::ALL {
            if self.channel(ring).state.phase != RingPhase::Absent {
                self.end_ring(ring, effects);
            }
        }
        self.end_step(effects);
        Outcome::Proceed
    }

    /// Takes a vCPU out of whatever queue it stands in.
    pub(crate) fn leave_queue(&mut self, vcpu: VcpuId, effects: &mut Effects) {
        self.leave_by_policy(vcpu, effects);
        match self.vcpu(vcpu).wait {
            Wait::Queued(ring) => self.channel(ring).state.flow.waiters.retain(|other| *other != vcpu),
            Wait::Frame => self.budget.queue.retain(|other| *other != vcpu),
            Wait::Nothing | Wait::Paused(_) => return,
        }
        self.vcpu(vcpu).wait = Wait::Nothing;
    }

    /// `Input::Abandon`: the vCPU no longer wants what it queued for. A request that is out keeps it paused.
    pub(crate) fn abandon(&mut self, vcpu: VcpuId, effects: &mut Effects) -> Outcome {
        if vcpu.0 as usize >= self.vcpus.len() {
            return Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}"));
        }
        self.leave_queue(vcpu, effects);
        self.return_grants(vcpu, effects);
        self.vcpu(vcpu).emulation = None;
        self.end_step(effects);
        Outcome::Proceed
    }
}
