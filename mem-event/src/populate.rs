//! Memory behind frames: the domain's budget, who waits for a frame, and the first touch of a frame that has none.
//!
//! A frame that comes free is reserved for the oldest waiter before it is woken. The budget may be below what the domain
//! holds: then nothing is populated until a pager has brought it down.

use crate::control::{NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Event, Flags, Request};
use crate::life::Life;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::p2m::{Entry, P2mType};
use crate::vcpu::Wait;
use std::ops::ControlFlow;

impl Domain {
    /// How many frames the domain holds; frames that are shared count once.
    pub(crate) fn resident(&self) -> u64 {
        self.p2m.held() - self.shares.saved()
    }

    /// Frames within the budget that are neither held nor reserved.
    pub(crate) fn available(&self) -> u64 {
        self.budget.frames.saturating_sub(self.resident().saturating_add(self.budget.granted))
    }

    /// Whether the budget has a frame for a vCPU, which gets memory at once: the one reserved for it, or a free one.
    pub(crate) fn take_frame(&mut self, vcpu: VcpuId) -> bool {
        if std::mem::take(&mut self.vcpu(vcpu).frame) {
            self.budget.granted -= 1;
            return true;
        }
        self.available() > 0
    }

    /// A vCPU touches a frame that has no memory yet (or was ballooned out: it is given a new one, as a balloon deflates).
    pub(crate) fn first_touch(&mut self, vcpu: VcpuId, gfn: Gfn, effects: &mut Effects) -> ControlFlow<Outcome> {
        if !self.take_frame(vcpu) {
            return ControlFlow::Break(self.out_of_memory(vcpu, gfn, effects));
        }
        self.give_memory(gfn, effects);
        ControlFlow::Continue(())
    }

    /// `Control::Populate`: memory at a frame of RAM that was taken out, or at one beyond.
    pub(crate) fn put_memory(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if gfn.0 >= self.p2m.end() {
            return self.populate_beyond(gfn);
        }
        match self.p2m_type(gfn) {
            P2mType::MmioDm => Outcome::Refused(Errno::EINVAL, format!("frame {gfn} is no RAM")),
            P2mType::Invalid if self.available() == 0 => {
                Outcome::Refused(Errno::ENOMEM, format!("the budget has no memory for frame {gfn}"))
            }
            P2mType::Invalid => {
                self.give_memory(gfn, effects);
                Outcome::Proceed
            }
            kind => Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is there already, {kind}")),
        }
    }

    /// Zeroed memory for a frame, for which the budget has room.
    pub(crate) fn give_memory(&mut self, gfn: Gfn, effects: &mut Effects) {
        let entry = self.p2m.get(gfn);
        let access = if entry.chosen { entry.access } else { self.default_access };
        self.p2m.set(gfn, Entry { kind: P2mType::RamRw, held: true, access, ..entry });
        // A foreign caller may have waited for this very frame.
        self.room = true;
        effects.list.push(Effect::Zero(gfn));
    }

    /// No frame for a vCPU, for whatever cause: one event on the sharing ring, or a place in the queue for frames.
    pub(crate) fn out_of_memory(&mut self, vcpu: VcpuId, gfn: Gfn, effects: &mut Effects) -> Outcome {
        let channel = &self.channels[Ring::Sharing.index()];
        if !channel.has_consumer() {
            if channel.state.policy == NoConsumer::Crash {
                return self.crash(format!("vCPU {vcpu} needs memory at frame {gfn}, and nobody provides it"), effects);
            }
            self.vcpu(vcpu).wait = Wait::Frame;
            self.budget.queue.push_back(vcpu);
            return Outcome::Wait(WaitReason::Frame);
        }
        let request = Request { flags: Flags::VCPU_PAUSED, vcpu, ..self.enomem(gfn) };
        if self.is_historic(Ring::Sharing) {
            return self.enomem_by_policy(vcpu, request, effects);
        }
        let claim = match self.claim::<false>(vcpu, Ring::Sharing, effects) {
            Ok(claim) => claim,
            Err(outcome) => return outcome,
        };
        self.pause(vcpu, Ring::Sharing, gfn);
        self.put(Ring::Sharing, claim, request, effects);
        Outcome::Wait(WaitReason::Answer(Ring::Sharing))
    }

    /// No frame for a foreign caller: the helper is told where the ring has room, and the caller does not wait. The caller may be the
    /// helper itself.
    pub(crate) fn out_of_memory_foreign(&mut self, gfn: Gfn, effects: &mut Effects) {
        if let crate::ring_state::Claimed::Slot(claim) = self.claim_foreign(Ring::Sharing) {
            let request = Request { flags: Flags::FOREIGN, ..self.enomem(gfn) };
            self.put(Ring::Sharing, claim, request, effects);
        }
    }

    fn enomem(&self, gfn: Gfn) -> Request {
        Request {
            flags: Flags::NONE,
            vcpu: VcpuId(0),
            event: Event::Sharing { gfn, p2mt: self.p2m_type(gfn) },
            view: ViewId::HOST,
        }
    }

    /// Sets every free frame aside for the vCPUs that wait for one, oldest first.
    pub(crate) fn grant_frames(&mut self, effects: &mut Effects) {
        self.room = true;
        while self.available() > 0
            && let Some(vcpu) = self.budget.queue.pop_front()
        {
            self.budget.granted += 1;
            let it = self.vcpu(vcpu);
            it.wait = Wait::Nothing;
            it.frame = true;
            effects.list.push(Effect::Wake(vcpu));
        }
    }

    /// Wakes all that wait for a frame without one, because what they do then has changed.
    pub(crate) fn wake_frame_waiters(&mut self, effects: &mut Effects) {
        while let Some(vcpu) = self.budget.queue.pop_front() {
            self.vcpu(vcpu).wait = Wait::Nothing;
            effects.list.push(Effect::Wake(vcpu));
        }
    }

    /// `Control::SetBudget`.
    pub(crate) fn set_budget(&mut self, frames: u64, effects: &mut Effects) -> Outcome {
        self.budget.frames = frames;
        self.grant_frames(effects);
        Outcome::Proceed
    }

    /// Frames without memory: the next touch populates them. Frames that are not ordinary memory are left as they are.
    pub(crate) fn unpopulated(&mut self, first: Gfn, count: u64, effects: &mut Effects) -> Outcome {
        let Some(end) = first.0.checked_add(count).filter(|end| *end <= self.p2m.end()) else {
            return Outcome::Refused(Errno::EINVAL, format!("{count} frames at {first} reach above the last frame"));
        };
        if self.life == Life::Dying {
            return Outcome::Refused(Errno::EINVAL, "the domain is being torn down".to_string());
        }
        for gfn in (first.0..end).map(Gfn) {
            let entry = self.p2m.get(gfn);
            if entry.kind == P2mType::RamRw && entry.held && entry.pins == 0 {
                self.p2m.set(gfn, Entry { kind: P2mType::PopulateOnDemand, held: false, ..entry });
            }
        }
        self.grant_frames(effects);
        self.end_step(effects);
        Outcome::Proceed
    }
}
