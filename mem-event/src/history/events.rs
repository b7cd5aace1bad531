//! Claims, puts and what becomes of those that fail.

use crate::control::{NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Flags, Request};
use crate::flow::{FlowKind, Place, Put, Try};
use crate::historic::{Held, Sleep, Sleeper};
use crate::input::CpuEvent;
use crate::life::Life;
use crate::number::{Gfn, VcpuId};
use crate::packed::Packed;
use crate::registers::Registers;
use crate::ring_state::{Claim, Claimed, RingPhase};
use crate::vcpu::{Breakpoint, Wait};

/// When a vCPU is paused for the event whose request is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Before,
    After,
    Already,
}

impl Domain {
    /// A claim of one of the domain's vCPUs on a ring that has a consumer; what it does instead, where it gets no slot. `None`: the ring is
    /// under `queue`.
    #[cold]
    #[inline(never)]
    pub(crate) fn claim_by_policy(&mut self, vcpu: VcpuId, ring: Ring) -> Option<Result<Claim, Outcome>> {
        if !self.channels[ring.index()].has_consumer() {
            return None;
        }
        let (flow, stops, free) = self.policy(ring)?;
        Some(match flow.claim(vcpu, free, stops) {
            Try::Slot => Ok(Claim::historic(false)),
            Try::Asleep(Place::Claim | Place::Line) => Err(self.falls_asleep(vcpu, ring, Sleep::Claim)),
            Try::Asleep(Place::Flag) => Err(self.falls_asleep(vcpu, ring, Sleep::Flag)),
            // The ring is there: the engine has looked.
            Try::Refused | Try::NoRing => Err(Outcome::Retry(Errno::EBUSY)),
        })
    }

    /// A claim of a foreign caller, by whatever flow control the ring has.
    pub(crate) fn claim_foreign(&mut self, ring: Ring) -> Claimed {
        if !self.is_historic(ring) || !self.channel(ring).has_consumer() {
            return self.channel(ring).claim_foreign();
        }
        let tried = self.policy(ring).map(|(flow, _, free)| flow.claim_foreign(free));
        match tried {
            Some(Try::Slot) => Claimed::Slot(Claim::historic(true)),
            Some(Try::Refused | Try::Asleep(_)) => Claimed::Full,
            Some(Try::NoRing) | None => Claimed::NoConsumer,
        }
    }

    fn falls_asleep(&mut self, vcpu: VcpuId, ring: Ring, place: Sleep) -> Outcome {
        self.history().sleepers.insert(vcpu, Sleeper { ring, place });
        self.vcpu(vcpu).wait = Wait::Queued(ring);
        let has_consumer = self.channel(ring).has_consumer();
        Outcome::Wait(if has_consumer { WaitReason::Slot(ring) } else { WaitReason::Consumer(ring) })
    }

    /// A vCPU needs a ring that takes nothing.
    #[cold]
    #[inline(never)]
    pub(crate) fn without_listener_by_policy(&mut self, vcpu: VcpuId, ring: Ring, effects: &mut Effects) -> Outcome {
        let state = &self.channels[ring.index()].state;
        let (phase, setting) = (state.phase.clone(), state.policy);
        if matches!(phase, RingPhase::Draining | RingPhase::Broken(_)) {
            // Neither is in the sources: it sleeps until the ring ends.
            self.history().stops.pause(vcpu);
            return self.falls_asleep(vcpu, ring, Sleep::Flag);
        }
        let tried = self.policy(ring).map(|(flow, stops, _)| flow.without_listener(vcpu, stops));
        match tried {
            Some(Try::Asleep(_)) if setting != NoConsumer::Crash => self.falls_asleep(vcpu, ring, Sleep::Flag),
            _ => self.crash(format!("vCPU {vcpu} needs the {ring} ring, which has no consumer"), effects),
        }
    }

    /// A put whose claim is not this engine's to judge.
    #[cold]
    #[inline(never)]
    pub(crate) fn put_by_policy(
        &mut self,
        ring: Ring,
        foreign: bool,
        packed: Packed,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) {
        let request = packed.request();
        if !foreign {
            return self.post(ring, request, registers, Pause::Before, effects);
        }
        let put = self.policy(ring).map(|(flow, stops, free)| flow.put_foreign(free, stops));
        self.has_put(ring, request, registers, put, effects);
        self.rouse(effects);
    }

    /// A vCPU puts its request, or tries again.
    pub(super) fn post(
        &mut self,
        ring: Ring,
        request: Request,
        registers: Option<&Registers>,
        pause: Pause,
        effects: &mut Effects,
    ) {
        let vcpu = request.vcpu;
        let paused = request.flags.contains(Flags::VCPU_PAUSED);
        if paused && pause == Pause::Before {
            self.history().stops.pause(vcpu);
        }
        let put = self.policy(ring).map(|(flow, stops, free)| flow.put(vcpu, paused, free, stops));
        self.has_put(ring, request, registers, put, effects);
        match put {
            Some(Put::Done { blocked }) => {
                if paused && pause == Pause::After {
                    self.history().stops.pause(vcpu);
                }
                if blocked && !paused {
                    let _ = self.falls_asleep(vcpu, ring, Sleep::Flag);
                }
            }
            Some(Put::Asleep) => {
                let held = Held { request: Packed::new(&request), pauses_after: pause == Pause::After };
                let _ = self.falls_asleep(vcpu, ring, Sleep::Put(held));
            }
            _ => {}
        }
        self.rouse(effects);
    }

    /// What a vCPU does whose put is over: it waits, or is told that the domain is gone; `None`: it goes on.
    pub(crate) fn has_posted(&self, vcpu: VcpuId) -> Option<Outcome> {
        if self.life != Life::Alive {
            return Some(Outcome::Crashed);
        }
        self.waiting(vcpu).map(Outcome::Wait)
    }

    /// What becomes of the request.
    fn has_put(
        &mut self,
        ring: Ring,
        request: Request,
        registers: Option<&Registers>,
        put: Option<Put>,
        effects: &mut Effects,
    ) {
        match put {
            Some(Put::Done { .. }) => {
                if let Some(slot) = self.channel(ring).write(&request, registers) {
                    if self.record {
                        effects.push(|| Effect::Requested { ring, slot, request });
                    }
                    effects.push(|| Effect::Notify(ring));
                }
            }
            Some(Put::Lost) => effects.list.push(Effect::Lost { ring, request, printed: true }),
            Some(Put::Fault) => {
                let _ = self.crash(format!("a request is put on the {ring} ring, which is no more"), effects);
            }
            Some(Put::Asleep) | None => {}
        }
    }

    /// A CPU event whose claim came to nothing. Before the patch a vCPU that finds the ring full sleeps, but the register is written: the event
    /// is lost. A breakpoint is fetched again.
    #[cold]
    pub(crate) fn without_claim(&mut self, vcpu: VcpuId, event: &CpuEvent, request: Request, effects: &mut Effects) {
        let ring = Ring::Access;
        let sleeper = self.historic.as_ref().and_then(|it| it.sleepers.get(&vcpu));
        let is_marked = sleeper.is_some_and(|it| it.place == Sleep::Flag);
        if !is_marked || !self.channel(ring).has_consumer() {
            return;
        }
        self.vcpu(vcpu).answered = Some(*event);
        if event.kind.trap().is_some() {
            self.vcpu(vcpu).breakpoint = Breakpoint::FetchedAgain;
        } else {
            effects.list.push(Effect::Lost { ring, request, printed: false });
        }
    }

    /// An out-of-memory event, where its source pauses the vCPU at another place than between claim and put.
    #[cold]
    pub(crate) fn enomem_by_policy(&mut self, vcpu: VcpuId, request: Request, effects: &mut Effects) -> Outcome {
        let ring = Ring::Sharing;
        let pause = match self.flow(ring) {
            FlowKind::CheckRing => {
                // "Pause first": where there is no room it returns, and nobody will take this pause back.
                self.history().stops.pause(vcpu);
                Pause::Already
            }
            FlowKind::WaitQueueV5 => Pause::After,
            FlowKind::Queue | FlowKind::Blocked2012 => Pause::Before,
        };
        if let Err(outcome) = self.claim::<false>(vcpu, ring, effects) {
            if self.flow(ring) == FlowKind::CheckRing {
                effects.list.push(Effect::Lost { ring, request, printed: false });
            }
            return outcome;
        }
        self.pause(vcpu, ring, Gfn(request.event.subject()));
        self.post(ring, request, None, pause, effects);
        self.has_posted(vcpu).unwrap_or(Outcome::Wait(WaitReason::Answer(ring)))
    }

    /// The pager is told that a frame is gone; `vcpu` is `None` for the toolstack. `Err`: a vCPU must sleep in its claim first.
    #[cold]
    pub(crate) fn claim_drop_by_policy(&mut self, vcpu: Option<VcpuId>) -> Result<Option<Claim>, Outcome> {
        let ring = Ring::Paging;
        if let Some(vcpu) = vcpu
            && self.vcpu(vcpu).slot.take_if(|it| *it == ring).is_some()
        {
            return Ok(Some(Claim::historic(false)));
        }
        let tried = self.policy(ring).map(|(flow, stops, free)| flow.claim_drop(vcpu, free, stops));
        match (tried, vcpu) {
            (Some(Try::Slot), _) => Ok(Some(Claim::historic(vcpu.is_none()))),
            (Some(Try::Asleep(Place::Claim)), Some(vcpu)) => Err(self.falls_asleep(vcpu, ring, Sleep::Claim)),
            (Some(Try::Asleep(_)), Some(vcpu)) => {
                let _ = self.falls_asleep(vcpu, ring, Sleep::Flag);
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The vCPU has given its frame back; whether it sleeps before it goes on.
    pub(crate) fn has_ballooned(&mut self, vcpu: VcpuId, gfn: Gfn) -> Outcome {
        match self.waiting(vcpu) {
            None => Outcome::Proceed,
            Some(reason) => {
                self.history().ballooned.insert(vcpu, gfn);
                Outcome::Wait(reason)
            }
        }
    }
}
