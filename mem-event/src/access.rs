//! Accesses of vCPUs: the access rights first, then what the frame's type asks for, in one pass as in Xen's nested page fault.

use crate::control::{NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::{Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Event, Flags, Request};
use crate::input::{Access, AccessSource};
use crate::number::{Gfn, VcpuId, ViewId};
use crate::p2m::{Entry, P2mType};
use crate::registers::Registers;
use crate::rights::{AccessType, Rights};
use std::ops::ControlFlow;

impl Domain {
    /// A vCPU is about to access a frame, or retries after a wake: [`crate::Input::Access`] without the wrapping, and
    /// [`crate::With::registers`].
    pub fn access(
        &mut self,
        vcpu: VcpuId,
        access: &Access,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Outcome {
        if let Some(outcome) = self.stopped(vcpu) {
            return outcome;
        }
        if let Err(sentence) = check(access) {
            return Outcome::Refused(Errno::EINVAL, sentence);
        }
        if !self.has_loose_ends(vcpu) {
            // Nothing to do afterwards: the outcome is built where the caller wants it.
            return self.nested_page_fault::<true>(vcpu, access, registers, effects);
        }
        self.judge(vcpu, access, registers, effects)
    }

    /// The access of a vCPU that may have something due.
    fn judge(
        &mut self,
        vcpu: VcpuId,
        access: &Access,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Outcome {
        let outcome = match self.go_on(vcpu, registers, effects) {
            Some(outcome) => outcome,
            None => {
                let outcome = self.nested_page_fault::<false>(vcpu, access, registers, effects);
                if outcome == Outcome::Proceed {
                    self.is_allowed_by_now(vcpu, access);
                }
                outcome
            }
        };
        self.return_grants(vcpu, effects);
        self.end_step(effects);
        outcome
    }

    /// `hvm_hap_nested_page_fault`: what the rights and the type of the frame make of the access.
    /// `PLAIN` as in [`Domain::claim`].
    fn nested_page_fault<const PLAIN: bool>(
        &mut self,
        vcpu: VcpuId,
        access: &Access,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Outcome {
        let alone = !PLAIN && self.is_let_through(vcpu, access.rip);
        let view = if PLAIN { ViewId::HOST } else { self.view_of(vcpu) };
        let get = |domain: &Domain| {
            if PLAIN { domain.p2m.get(access.gfn) } else { domain.p2m.get_in(view, access.gfn) }
        };
        let mut entry = get(self);
        if !entry.is_ram() {
            return Outcome::Proceed;
        }
        if entry.passing().contains(access.rights) {
            return if PLAIN { Outcome::Proceed } else { self.passes_by_view(vcpu, access) };
        }
        if matches!(entry.kind, P2mType::PopulateOnDemand | P2mType::Invalid) {
            if let ControlFlow::Break(outcome) = self.first_touch(vcpu, access.gfn, effects) {
                return outcome;
            }
            entry = get(self);
        }
        // Only a frame that is there has rights to violate; one that is paged out is checked when it is back.
        let violates = entry.held && !entry.access.rights().contains(access.rights);
        if violates
            && !alone
            && let ControlFlow::Break(outcome) = self.violation::<PLAIN>((vcpu, access), entry, registers, effects)
        {
            return outcome;
        }
        let outcome = match entry.kind {
            kind if kind.is_paging() => self.populate::<PLAIN>(vcpu, access.gfn, effects),
            P2mType::RamShared if access.rights.contains(Rights::W) => self.unshare(vcpu, access.gfn, effects),
            _ => Outcome::Proceed,
        };
        match outcome {
            Outcome::Proceed if alone && violates => Outcome::Alone,
            Outcome::Proceed if !PLAIN => self.passes_by_view(vcpu, access),
            other => other,
        }
    }

    /// [`crate::Input::AccessNosleep`]: the same, but the vCPU stands in no queue afterwards.
    pub(crate) fn access_nosleep(
        &mut self,
        vcpu: VcpuId,
        access: &Access,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Outcome {
        if let Some(outcome) = self.stopped(vcpu) {
            return outcome;
        }
        if let Err(sentence) = check(access) {
            return Outcome::Refused(Errno::EINVAL, sentence);
        }
        match self.judge(vcpu, access, registers, effects) {
            outcome @ Outcome::Wait(WaitReason::Answer(_)) => outcome,
            Outcome::Wait(reason) => {
                self.leave_queue(vcpu, effects);
                self.retry(if reason == WaitReason::Frame { Errno::ENOMEM } else { Errno::EBUSY })
            }
            other => other,
        }
    }

    /// `p2m_mem_access_check`: `Continue` where the access goes on to the checks of the frame's type ("promoted").
    fn violation<const PLAIN: bool>(
        &mut self,
        (vcpu, access): (VcpuId, &Access),
        entry: Entry,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> ControlFlow<Outcome> {
        let mut entry = entry;
        let view = if PLAIN { ViewId::HOST } else { self.view_of(vcpu) };
        if self.gives_way(view, access, &mut entry) {
            return ControlFlow::Continue(());
        }
        let claim = match self.claim::<PLAIN>(vcpu, Ring::Access, effects) {
            Ok(claim) => claim,
            Err(outcome) => return ControlFlow::Break(outcome),
        };
        let mut request = violation_request(vcpu, access);
        let goes_on = entry.access == AccessType::N2rwx;
        if goes_on {
            self.set_rights(view, access.gfn, AccessType::Rwx);
        } else {
            request.flags = Flags::VCPU_PAUSED;
            self.pause(vcpu, Ring::Access, access.gfn);
            let it = self.vcpu(vcpu);
            (it.stopped_at, it.stopped_for) = (access.rip, access.rights);
        }
        self.put_with::<PLAIN>(Ring::Access, claim, request, registers, effects);
        if !PLAIN {
            // Such a put may let its vCPU sleep, with an event that stops it or not.
            return self.has_posted(vcpu).map_or(ControlFlow::Continue(()), ControlFlow::Break);
        }
        if goes_on {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Outcome::Wait(WaitReason::Answer(Ring::Access)))
    }

    /// Whether the frame's rights become such that the access passes without an event: `rx2rw` by a write, anything where
    /// there is no listener and the ring is set to relax.
    #[inline(always)]
    pub(crate) fn gives_way(&mut self, view: ViewId, access: &Access, entry: &mut Entry) -> bool {
        if entry.access == AccessType::Rx2rw && access.rights.contains(Rights::W) {
            entry.access = AccessType::Rw;
            self.set_rights(view, access.gfn, AccessType::Rw);
            if AccessType::Rw.rights().contains(access.rights) {
                return true;
            }
        }
        let channel = &self.channels[Ring::Access.index()];
        let relaxes = !channel.has_consumer() && channel.state.policy == NoConsumer::Relax;
        if relaxes {
            self.set_rights(view, access.gfn, AccessType::Rwx);
        }
        relaxes
    }

    /// A foreign caller may wait for these rights.
    pub(crate) fn set_rights(&mut self, view: ViewId, gfn: Gfn, access: AccessType) {
        self.p2m.set_access_in(view, gfn, access);
        self.room = true;
    }
}

pub(crate) fn check(access: &Access) -> Result<(), String> {
    if access.offset >= 4096 {
        return Err(format!("offset {} in a frame of 4096 bytes", access.offset));
    }
    if access.rights.is_empty() {
        return Err("an access that wants no rights".to_string());
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn violation_request(vcpu: VcpuId, access: &Access) -> Request {
    let Access { gfn, offset, gla, rights, source, .. } = *access;
    let in_gpt = source == AccessSource::PageWalk;
    Request {
        flags: Flags::NONE,
        vcpu,
        event: Event::Violation { gfn, offset, gla, rights, in_gpt },
        view: ViewId::HOST,
    }
}
