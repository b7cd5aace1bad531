//! Paging: how a frame leaves for the pager and comes back (Xen 4.2's `p2m_mem_paging_*` and later fixes).
//!
//! ```text
//!            nominate               evict                touch                  response
//!   RamRw ------------> RamPagingOut -----> RamPaged ------------> RamPagingIn ----------> RamRw
//!     ^                     | touch: EVICT_FAIL                   ^ (prep: content)          Map
//!     |                     +-------------------------------------+
//!     +---- prep of a frame that was not asked for: RamPaged --> RamRw at once
//! ```
//! The type stays `RamPagingIn` until the response, so nothing reads the frame before its content is there.

use crate::control::Ring;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Event, Flags, Request};
use crate::life::Life;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::p2m::{Entry, P2mType};
use crate::ring_state::{Claim, Claimed, RingPhase};

impl Domain {
    /// A vCPU touches a frame that is with the pager, or on its way there or back (`p2m_mem_paging_populate`). Each vCPU that
    /// touches is paused once with a request of its own.
    pub(crate) fn populate<const PLAIN: bool>(&mut self, vcpu: VcpuId, gfn: Gfn, effects: &mut Effects) -> Outcome {
        let claim = match self.claim::<PLAIN>(vcpu, Ring::Paging, effects) {
            Ok(claim) => claim,
            Err(outcome) => return outcome,
        };
        let request = self.ask_for(gfn);
        self.pause(vcpu, Ring::Paging, gfn);
        let flags = request.flags.union(Flags::VCPU_PAUSED);
        self.put_with::<PLAIN>(Ring::Paging, claim, Request { flags, vcpu, ..request }, None, effects);
        let due = Outcome::Wait(WaitReason::Answer(Ring::Paging));
        if PLAIN { due } else { self.has_posted(vcpu).unwrap_or(due) }
    }

    /// A foreign caller touches it, and is told to retry; one request is made for all of them.
    pub(crate) fn populate_foreign(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        let asked = || self.channels[Ring::Paging.index()].state.outstanding.iter().any(|request| request.gfn() == gfn);
        if self.p2m_type(gfn) == P2mType::RamPagingIn && asked() {
            return self.retry(Errno::ENOENT);
        }
        match self.claim_foreign(Ring::Paging) {
            Claimed::Slot(claim) => {
                let request = self.ask_for(gfn);
                let flags = request.flags.union(Flags::FOREIGN);
                self.put(Ring::Paging, claim, Request { flags, ..request }, effects);
                self.retry(Errno::ENOENT)
            }
            Claimed::Full => self.retry(Errno::EBUSY),
            Claimed::NoConsumer => self.retry(Errno::ENOSYS),
        }
    }

    /// Turns the frame's type towards the guest and words the request, which shows the type from before.
    fn ask_for(&mut self, gfn: Gfn) -> Request {
        let entry = self.p2m.get(gfn);
        if entry.kind != P2mType::RamPagingIn {
            self.p2m.set(gfn, Entry { kind: P2mType::RamPagingIn, ..entry });
        }
        let flags = if entry.kind == P2mType::RamPagingOut { Flags::EVICT_FAIL } else { Flags::NONE };
        paging_request(gfn, flags, entry.kind)
    }

    /// A response names this frame (`p2m_mem_paging_resume`): with memory behind it, it is ordinary memory again.
    pub(crate) fn resume_page(&mut self, gfn: Gfn, effects: &mut Effects) {
        let entry = self.p2m.get(gfn);
        if entry.kind == P2mType::RamPagingIn && entry.held {
            self.map_again(gfn, entry, effects);
        }
    }

    fn map_again(&mut self, gfn: Gfn, entry: Entry, effects: &mut Effects) {
        self.p2m.set(gfn, Entry { kind: P2mType::RamRw, ..entry });
        self.room = true;
        effects.list.push(Effect::Map(gfn));
    }

    /// `Control::Nominate`.
    pub(crate) fn nominate(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if let Some(refused) = self.no_pager() {
            return refused;
        }
        let entry = self.p2m.get(gfn);
        if entry.kind != P2mType::RamRw || !entry.held {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is {}, not pageable", entry.kind));
        }
        if entry.pins > 0 {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is mapped by somebody"));
        }
        self.p2m.set(gfn, Entry { kind: P2mType::RamPagingOut, ..entry });
        // A foreign caller that waited for rights asks the pager first now.
        self.room = true;
        effects.list.push(Effect::Unmap(gfn));
        Outcome::Proceed
    }

    /// `Control::Evict`.
    pub(crate) fn evict(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if let Some(refused) = self.no_pager() {
            return refused;
        }
        let entry = self.p2m.get(gfn);
        if entry.kind != P2mType::RamPagingOut || entry.pins > 0 {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is {}, not nominated", entry.kind));
        }
        self.p2m.set(gfn, Entry { kind: P2mType::RamPaged, held: false, ..entry });
        effects.list.push(Effect::Punch(gfn));
        self.grant_frames(effects);
        Outcome::Proceed
    }

    /// `Control::Prep`. A frame whose memory never left takes no content; one that was not asked for is mapped at once.
    pub(crate) fn prep(&mut self, gfn: Gfn, buffer: bool, effects: &mut Effects) -> Outcome {
        if let Some(refused) = self.no_pager_to_load() {
            return refused;
        }
        let entry = self.p2m.get(gfn);
        if !matches!(entry.kind, P2mType::RamPagingIn | P2mType::RamPaged) {
            return Outcome::Refused(Errno::ENOENT, format!("frame {gfn} is {}, not paged out", entry.kind));
        }
        if entry.held {
            return Outcome::Proceed;
        }
        if !buffer {
            return Outcome::Refused(Errno::EINVAL, format!("frame {gfn} has no memory and no content was given"));
        }
        if self.available() == 0 {
            self.out_of_memory_foreign(gfn, effects);
            let budget = self.budget.frames;
            return Outcome::Refused(Errno::ENOMEM, format!("the budget of {budget} frames is used up"));
        }
        let entry = Entry { held: true, ..entry };
        self.p2m.set(gfn, entry);
        effects.list.push(Effect::Fill(gfn));
        if entry.kind == P2mType::RamPaged {
            self.map_again(gfn, entry, effects);
        }
        Outcome::Proceed
    }

    /// The content could not be written: the frame goes back to the budget, its content is still the pager's.
    pub(crate) fn fill_failed(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        let entry = self.p2m.get(gfn);
        let kind = match entry.kind {
            P2mType::RamPagingIn if entry.held && entry.pins == 0 => P2mType::RamPagingIn,
            P2mType::RamRw if entry.held && entry.pins == 0 => P2mType::RamPaged,
            other => return Outcome::Refused(Errno::ENOENT, format!("frame {gfn} is {other}, no content was due")),
        };
        if kind == P2mType::RamPaged {
            effects.list.push(Effect::Unmap(gfn));
        }
        self.p2m.set(gfn, Entry { kind, held: false, ..entry });
        effects.list.push(Effect::Punch(gfn));
        self.grant_frames(effects);
        self.end_step(effects);
        Outcome::Proceed
    }

    /// `Control::Drop`: the toolstack balloons a frame out. It cannot wait, so a full ring refuses it.
    pub(crate) fn drop_page(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.beyond.has(gfn) {
            return self.drop_beyond(gfn, effects);
        }
        if let Some(refused) = self.not_droppable(gfn) {
            return refused;
        }
        let mut claim = None;
        if self.p2m_type(gfn).is_paging() && self.is_historic(Ring::Paging) {
            claim = self.claim_drop_by_policy(None).ok().flatten();
        } else if self.p2m_type(gfn).is_paging() {
            claim = match self.claim_foreign(Ring::Paging) {
                Claimed::Slot(claim) => Some(claim),
                Claimed::NoConsumer if self.channel(Ring::Paging).state.phase == RingPhase::Absent => None,
                Claimed::Full => return Outcome::Refused(Errno::EBUSY, "the paging ring is full".to_string()),
                Claimed::NoConsumer => {
                    return Outcome::Refused(Errno::EBUSY, "nobody takes the paging ring's requests".to_string());
                }
            };
        }
        self.remove_page(gfn, claim, (VcpuId(0), Flags::FOREIGN), effects);
        Outcome::Proceed
    }

    /// `Input::Balloon`: the guest gives a frame back. Where the pager must hear of it, the vCPU waits for a slot.
    pub(crate) fn balloon(&mut self, vcpu: VcpuId, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if let Some(outcome) = self.stopped(vcpu) {
            return outcome;
        }
        let outcome = match self.go_on(vcpu, None, effects) {
            Some(outcome) => outcome,
            None => self.balloon_now(vcpu, gfn, effects),
        };
        self.return_grants(vcpu, effects);
        self.end_step(effects);
        outcome
    }

    fn balloon_now(&mut self, vcpu: VcpuId, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.historic.as_mut().and_then(|it| it.ballooned.remove(&vcpu)) == Some(gfn) {
            return Outcome::Proceed;
        }
        if let Some(refused) = self.not_droppable(gfn) {
            return refused;
        }
        let mut claim = None;
        if self.p2m_type(gfn).is_paging() && self.is_historic(Ring::Paging) {
            claim = match self.claim_drop_by_policy(Some(vcpu)) {
                Ok(claim) => claim,
                Err(outcome) => return outcome,
            };
            self.remove_page(gfn, claim, (vcpu, Flags::NONE), effects);
            return self.has_ballooned(vcpu, gfn);
        }
        let ring_exists = self.channels[Ring::Paging.index()].state.phase != RingPhase::Absent;
        if self.p2m_type(gfn).is_paging() && ring_exists {
            claim = match self.claim::<false>(vcpu, Ring::Paging, effects) {
                Ok(claim) => Some(claim),
                Err(outcome) => return outcome,
            };
        }
        self.remove_page(gfn, claim, (vcpu, Flags::NONE), effects);
        Outcome::Proceed
    }

    fn not_droppable(&self, gfn: Gfn) -> Option<Outcome> {
        let entry = self.p2m.get(gfn);
        if !entry.is_ram() || entry.kind == P2mType::Invalid {
            return Some(Outcome::Refused(Errno::ENOENT, format!("frame {gfn} is {}", entry.kind)));
        }
        (entry.pins > 0).then(|| Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is mapped by somebody")))
    }

    /// The entry goes first, then the pager hears of it (`p2m_mem_paging_drop_page`).
    fn remove_page(&mut self, gfn: Gfn, claim: Option<Claim>, by: (VcpuId, Flags), effects: &mut Effects) {
        let entry = self.p2m.get(gfn);
        self.p2m.set(gfn, Entry { kind: P2mType::Invalid, held: false, chosen: false, ..entry });
        self.room = true;
        if matches!(entry.kind, P2mType::RamRw | P2mType::RamShared) {
            effects.list.push(Effect::Unmap(gfn));
        }
        if entry.held {
            self.give_frame_back(gfn, entry.kind, effects);
        }
        let evict_fail = if entry.kind == P2mType::RamPagingOut { Flags::EVICT_FAIL } else { Flags::NONE };
        let (vcpu, flags) = (by.0, by.1.union(Flags::DROP_PAGE).union(evict_fail));
        let request = Request { vcpu, ..paging_request(gfn, flags, P2mType::RamRw) };
        let ring = Ring::Paging;
        if let Some(claim) = claim {
            self.put(ring, claim, request, effects);
        } else if entry.kind.is_paging() && self.is_historic(ring) && self.channel(ring).has_consumer() {
            effects.list.push(Effect::Lost { ring, request, printed: false });
        }
        self.grant_frames(effects);
    }

    /// Without a pager nothing waits for one: frames that are still there are the guest's again.
    pub(crate) fn forget_pager(&mut self, effects: &mut Effects) {
        for gfn in (0..self.p2m.end()).map(Gfn) {
            let entry = self.p2m.get(gfn);
            match entry.kind {
                P2mType::RamPagingOut | P2mType::RamPagingIn if entry.held => self.map_again(gfn, entry, effects),
                P2mType::RamPagingIn => self.p2m.set(gfn, Entry { kind: P2mType::RamPaged, ..entry }),
                _ => {}
            }
        }
    }

    fn no_pager(&self) -> Option<Outcome> {
        self.no_pager_to_load().or_else(|| {
            let draining = self.channels[Ring::Paging.index()].state.phase == RingPhase::Draining;
            draining.then(|| Outcome::Refused(Errno::EBUSY, "the paging ring is about to end".to_string()))
        })
    }

    fn no_pager_to_load(&self) -> Option<Outcome> {
        if self.life == Life::Dying {
            return Some(Outcome::Refused(Errno::EINVAL, "the domain is being torn down".to_string()));
        }
        let absent = self.channels[Ring::Paging.index()].state.phase == RingPhase::Absent;
        absent.then(|| Outcome::Refused(Errno::ENODEV, "there is no paging ring".to_string()))
    }
}

const fn paging_request(gfn: Gfn, flags: Flags, p2mt: P2mType) -> Request {
    Request { flags, vcpu: VcpuId(0), event: Event::Paging { gfn, p2mt }, view: ViewId::HOST }
}
