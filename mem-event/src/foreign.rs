//! Accesses of those who are no vCPU: devices, mappers. They never sleep; where they cannot go on they are told to come back.
//!
//! Xen checks EPT's rights for vCPUs only: a device's DMA meets the IOMMU, or nothing. Here a device touches guest memory as vCPUs
//! do, so its access is checked and reported like theirs, with `FOREIGN` and without a pause. Who only maps a frame touches nothing
//! yet, and is asked for no rights.

use crate::access::{check, violation_request};
use crate::control::{NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::{Effects, Outcome};
use crate::errno::Errno;
use crate::event::{Flags, Request};
use crate::input::Access;
use crate::life::Life;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::p2m::{Entry, P2mType};
use crate::packed::Packed;
use crate::rights::{AccessType, Rights};
use crate::ring_state::{Claimed, RingPhase};
use std::ops::ControlFlow;

impl Domain {
    /// A foreign caller is about to access a frame, or retries: [`crate::Input::Foreign`] without the wrapping.
    pub fn foreign(&mut self, access: &Access, effects: &mut Effects) -> Outcome {
        if self.life != Life::Alive {
            return Outcome::Crashed;
        }
        if let Err(sentence) = check(access) {
            return Outcome::Refused(Errno::EINVAL, sentence);
        }
        let outcome = self.foreign_fault(access, effects);
        self.end_step(effects);
        outcome
    }

    /// The frame must be there before its rights are asked, and they before it is unshared.
    fn foreign_fault(&mut self, access: &Access, effects: &mut Effects) -> Outcome {
        match self.bring(access.gfn, Rights::NONE, effects) {
            Outcome::Proceed => {}
            other => return other,
        }
        if self.is_asked_for(access.gfn) {
            return self.retry(Errno::EAGAIN);
        }
        let entry = self.p2m.get(access.gfn);
        if !entry.access.rights().contains(access.rights)
            && let ControlFlow::Break(outcome) = self.violation_foreign(access, entry, effects)
        {
            return outcome;
        }
        self.bring(access.gfn, access.rights, effects)
    }

    /// What the frame's type asks for before a foreign caller can use it so, whatever the access rights say.
    pub(crate) fn bring(&mut self, gfn: Gfn, rights: Rights, effects: &mut Effects) -> Outcome {
        match self.p2m_type(gfn) {
            kind if kind.is_paging() => self.populate_foreign(gfn, effects),
            P2mType::PopulateOnDemand | P2mType::Invalid => self.first_touch_foreign(gfn, effects),
            P2mType::RamShared if rights.contains(Rights::W) => self.unshare_foreign(gfn, effects),
            _ => Outcome::Proceed,
        }
    }

    /// Whether a foreign access to the frame is out on the access ring. All foreign callers that touch the frame wait for its answer, whatever the
    /// rights are by then: the listener may change them first and read the frame after.
    fn is_asked_for(&self, gfn: Gfn) -> bool {
        let state = &self.channels[Ring::Access.index()].state;
        let answers = matches!(state.phase, RingPhase::Live | RingPhase::Draining);
        // A vCPU's event of before a reset may be one of a register.
        let asked =
            |packed: &Packed| packed.is_violation() && packed.gfn() == gfn && packed.flags().contains(Flags::FOREIGN);
        answers && state.outstanding.iter().any(asked)
    }

    /// The rights forbid it. When it is answered they retry, and rights that are the same then make the same event again.
    fn violation_foreign(&mut self, access: &Access, entry: Entry, effects: &mut Effects) -> ControlFlow<Outcome> {
        let mut entry = entry;
        if self.gives_way(ViewId::HOST, access, &mut entry) {
            return ControlFlow::Continue(());
        }
        match self.claim_foreign(Ring::Access) {
            Claimed::Slot(claim) => {
                let request = Request { flags: Flags::FOREIGN, ..violation_request(VcpuId(0), access) };
                let goes_on = entry.access == AccessType::N2rwx;
                if goes_on {
                    self.set_rights(ViewId::HOST, access.gfn, AccessType::Rwx);
                }
                self.put(Ring::Access, claim, request, effects);
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(self.retry(Errno::EAGAIN)) }
            }
            Claimed::Full => ControlFlow::Break(self.retry(Errno::EBUSY)),
            Claimed::NoConsumer => ControlFlow::Break(self.without_listener(access.gfn, effects)),
        }
    }

    fn without_listener(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        let state = &self.channels[Ring::Access.index()].state;
        // A draining ring decides what follows when it has ended.
        if state.policy == NoConsumer::Crash && state.phase != RingPhase::Draining {
            return self.crash(format!("a device needs the access ring for frame {gfn}; it has no consumer"), effects);
        }
        self.retry(Errno::ENOSYS)
    }

    fn first_touch_foreign(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.available() == 0 {
            self.out_of_memory_foreign(gfn, effects);
            return self.retry(Errno::ENOMEM);
        }
        self.give_memory(gfn, effects);
        Outcome::Proceed
    }
}
