//! One kind of channel, of which a domain has three: the ring, its claims, and the vCPUs that wait for it.
//!
//! A slot is held from claim to response: claimed, then put, then outstanding until the engine takes an answer. So
//! `free - targets - foreigners >= 0` always, and a put after a claim cannot fail. The counters are the engine's own; nothing
//! that a consumer writes changes them, except that a response it may give frees one slot.
//!
//! One queue holds the waiters, oldest first. While a consumer is there they wait for a slot; while there is none, for a
//! consumer. A slot that comes free is claimed for the oldest before it is woken, so no other vCPU can take it ([`crate::flow::Queue`]).

use crate::answer::{self, Answer};
use crate::control::{Layout, NoConsumer, Ring};
use crate::effect::{Effect, Effects};
use crate::event::{About, Event, Flags, Request, Response};
use crate::flow::Queue;
use crate::number::VcpuId;
use crate::packed::Packed;
use crate::page::RingPage;
use crate::recorded;
use crate::registers::Registers;
use crate::ring::{Front, FrontState};
use crate::ring_state::{Claim, Claimed, RingPhase, RingState};
use crate::wire::flags32;
use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Channel {
    ring: Ring,
    pub state: RingState,
    front: Option<Front>,
    /// The registers of the requests that are out, in their order; none at all of a layout that carries none. Nothing is decided by
    /// them, so they are no state.
    registers: VecDeque<Option<Registers>>,
}

impl Channel {
    pub fn new(ring: Ring) -> Channel {
        let state = RingState {
            phase: RingPhase::Absent,
            policy: NoConsumer::Wait,
            layout: Layout::default(),
            slots: 0,
            outstanding: VecDeque::with_capacity(64),
            flow: Queue::default(),
            generation: 0,
        };
        Channel { ring, state, front: None, registers: VecDeque::new() }
    }

    /// Begins or, where requests are left from a lost consumer, takes up again with a fresh page: this one, or memory of the engine's.
    ///
    /// # Errors
    /// A sentence, where the page or the number of slots will not do; nothing has changed then.
    pub fn open(&mut self, layout: Layout, slots: u32, page: Option<&RingPage>) -> Result<(), String> {
        let page = page.cloned().unwrap_or_else(RingPage::heap);
        let front = Front::new(page, self.ring, layout, slots)?;
        self.state.phase = RingPhase::Live;
        self.state.layout = layout;
        self.state.slots = front.slots();
        self.front = Some(front);
        Ok(())
    }

    /// Ends the ring; its claims are void, its requests forgotten. The queue is the caller's to wake.
    pub fn close(&mut self) {
        self.front = None;
        self.registers.clear();
        let state = &mut self.state;
        state.phase = RingPhase::Absent;
        state.slots = 0;
        state.outstanding.clear();
        self.revoke();
    }

    /// The consumer is gone or not to be trusted: the page goes, the requests stay, promises to woken vCPUs are void.
    pub fn lose_consumer(&mut self, phase: RingPhase) {
        self.front = None;
        self.state.phase = phase;
        self.revoke();
    }

    /// Takes no more claims; the ring ends when nothing is outstanding.
    pub fn drain(&mut self) {
        self.state.phase = RingPhase::Draining;
        self.revoke();
    }

    /// Claims are void.
    fn revoke(&mut self) {
        self.state.flow.revoke();
        self.state.generation += 1;
    }

    #[inline]
    pub fn has_consumer(&self) -> bool {
        self.state.phase == RingPhase::Live
    }

    /// Slots without those of requests that are out.
    #[inline(always)]
    pub fn free(&self) -> u32 {
        let out = u32::try_from(self.state.outstanding.len()).unwrap_or(u32::MAX);
        assert!(out <= self.state.slots, "{out} requests are out on {} slots", self.state.slots);
        self.state.slots - out
    }

    /// Free slots: neither outstanding nor claimed.
    #[inline]
    pub fn available(&self) -> u32 {
        self.state.flow.available(self.free())
    }

    /// A claim of one of the domain's vCPUs, which waits where there is no room.
    #[inline]
    pub fn claim(&mut self) -> Claimed {
        if !self.has_consumer() {
            return Claimed::NoConsumer;
        }
        let free = self.free();
        self.claimed(false, |flow| flow.claim(free))
    }

    /// A claim of a foreign caller, which cannot wait.
    pub fn claim_foreign(&mut self) -> Claimed {
        if !self.has_consumer() {
            return Claimed::NoConsumer;
        }
        let (free, slots) = (self.free(), self.state.slots);
        self.claimed(true, |flow| flow.claim_foreign(free, slots))
    }

    #[inline(always)]
    fn claimed(&mut self, foreign: bool, by: impl FnOnce(&mut Queue) -> bool) -> Claimed {
        if by(&mut self.state.flow) {
            Claimed::Slot(Claim { foreign, generation: self.state.generation })
        } else {
            Claimed::Full
        }
    }

    /// Claims a slot for the oldest waiter, where there is both.
    #[inline]
    pub fn grant(&mut self) -> Option<VcpuId> {
        if !self.has_consumer() || self.state.flow.waiters.is_empty() {
            return None;
        }
        let free = self.free();
        self.state.flow.grant(free)
    }

    /// The claim that was made when its holder was woken.
    pub fn redeem(&mut self) -> Claim {
        assert!(self.state.flow.targets > 0, "a slot was granted and is not accounted for");
        Claim { foreign: false, generation: self.state.generation }
    }

    /// Gives a claim's slot back. Void claims are forgotten.
    pub fn cancel(&mut self, claim: Claim) {
        self.discharge(&claim);
    }

    /// Writes a request into the claimed slot and returns the slot's number, or `None` where the claim outlived its ring.
    #[inline(always)]
    pub fn put(&mut self, claim: Claim, request: &Request, registers: Option<&Registers>) -> Option<u32> {
        if !self.discharge(&claim) {
            return None;
        }
        self.write(request, registers)
    }

    #[inline(always)]
    fn discharge(&mut self, claim: &Claim) -> bool {
        if claim.generation != self.state.generation {
            return false;
        }
        self.state.flow.discharge(claim.foreign);
        true
    }

    /// Writes a request for which there is a slot.
    #[inline(always)]
    pub fn write(&mut self, request: &Request, registers: Option<&Registers>) -> Option<u32> {
        let front = self.front.as_mut()?;
        let slot = match registers {
            None => front.put(request),
            Some(_) => front.put_with(request, registers),
        };
        Packed::append(&mut self.state.outstanding, request);
        if self.state.layout == Layout::VmEvent7 {
            self.registers.push_back(registers.copied());
        }
        Some(slot)
    }

    /// Puts one request of those that a lost consumer left, oldest first, onto the new page.
    pub fn put_again(&mut self) -> Option<(u32, Request)> {
        let mut packed = self.state.outstanding.pop_front()?;
        if self.state.layout != Layout::VmEvent7 {
            packed.forgets_view();
        }
        let request = packed.request();
        let registers = self.registers.pop_front().flatten();
        self.write(&request, registers.as_ref()).map(|slot| (slot, request))
    }

    /// The requests that stopped this vCPU are nobody's any more: their answers free their slots, and what else they do is not for a vCPU.
    pub fn is_past(&mut self, vcpu: VcpuId) {
        self.state.outstanding.iter_mut().filter(|request| request.vcpu() == vcpu.0).for_each(Packed::becomes_foreign);
    }

    /// Forgets the requests that stop a vCPU: it goes on without their answer.
    pub fn forget_paused(&mut self) {
        let stays = |request: &Packed| !request.flags().contains(Flags::VCPU_PAUSED);
        let mut kept = self.state.outstanding.iter().map(stays).collect::<Vec<_>>().into_iter();
        self.registers.retain(|_| kept.next().unwrap_or(false));
        self.state.outstanding.retain(stays);
    }

    /// Polls once how many responses the consumer says there are; with `until` that is what it says.
    ///
    /// # Errors
    /// A sentence, where it moved its index further than requests are outstanding.
    #[inline]
    pub fn poll(&mut self, until: Option<u32>, taken: &mut Vec<u8>) -> Result<(), String> {
        match &mut self.front {
            Some(front) => front.poll(until, taken).map(|_| ()).map_err(|broken| broken.to_string()),
            None => Ok(()),
        }
    }

    /// One response of those that the poll saw, put on record if one is kept; its request is off the books.
    #[inline(always)]
    pub fn take(&mut self, effects: &mut Effects, record: bool) -> Option<Answer> {
        let ring = self.ring;
        let front = self.front.as_mut()?;
        if let Some((slot, words)) = front.take_flags32() {
            if record {
                recorded::answer(effects, ring, slot, &words);
            }
            let (flags, vcpu, subject) = flags32::read_answer(&words);
            let foreign = self.settle(flags, vcpu, subject);
            return Some(Answer { flags, vcpu, subject, foreign, ..Answer::default() });
        }
        let (slot, response) = front.take(&mut effects.taken)?;
        let Response { flags, vcpu, other_version, view, .. } = response;
        let subject = response.subject();
        let is_paging = matches!(response.about, About::Event(Event::Paging { .. }));
        let is_violation = matches!(response.about, About::Event(Event::Violation { .. }));
        // The 40-byte layouts have 0 there for all of paging and sharing.
        let is_vm_event = self.state.layout == Layout::VmEvent7;
        let cpu_event = match response.about {
            About::Event(Event::Cpu(cpu)) if is_vm_event => Some(cpu.kind()),
            _ => None,
        };
        let data = if flags.0 & answer::WITH_DATA != 0 { answer::data_of(&effects.taken) } else { None };
        // Then a view stands in its subject's place.
        let names_view = is_vm_event && flags.contains(Flags::FAST_SINGLESTEP);
        let after_step = if names_view { answer::stepped_into(&effects.taken) } else { None };
        if record {
            effects.push(|| Effect::Answered { ring, slot, response });
        } else {
            effects.taken.clear();
        }
        let due = if names_view { self.subject_due(vcpu).unwrap_or(subject) } else { subject };
        let foreign = self.settle(flags, vcpu, due);
        let (skip, other_reason) = (other_version.is_some(), is_vm_event && !is_paging);
        Some(Answer {
            flags,
            vcpu,
            subject,
            foreign,
            skip,
            other_reason,
            cpu_event,
            is_violation,
            view,
            after_step,
            data,
        })
    }

    fn subject_due(&self, vcpu: u32) -> Option<u64> {
        let stops = |it: &&Packed| it.vcpu() == vcpu && it.flags().contains(Flags::VCPU_PAUSED);
        self.state.outstanding.iter().find(stops).map(Packed::subject)
    }

    #[inline(always)]
    fn settle(&mut self, flags: Flags, vcpu: u32, subject: u64) -> bool {
        let outstanding = &mut self.state.outstanding;
        if let Some(oldest) = outstanding.front()
            && oldest.is_answered_by(flags, vcpu, subject)
        {
            let foreign = oldest.flags().contains(Flags::FOREIGN);
            outstanding.pop_front();
            self.registers.pop_front();
            return foreign;
        }
        self.settle_any(flags, vcpu, subject)
    }

    /// Takes the request off the books that a response answers: the one with its vCPU and frame, else the foreign one with its
    /// frame. A response that answers none still frees one slot: that of a request which stops nobody, else the oldest.
    #[inline(never)]
    fn settle_any(&mut self, flags: Flags, vcpu: u32, subject: u64) -> bool {
        let outstanding = &mut self.state.outstanding;
        let exact = |request: &Packed| request.is_answered_by(flags, vcpu, subject);
        let same = |request: &Packed| request.subject() == subject && request.vcpu() == vcpu;
        let foreign = |request: &Packed| request.subject() == subject && request.flags().contains(Flags::FOREIGN);
        let idle = |request: &Packed| !request.flags().contains(Flags::VCPU_PAUSED);
        let answered = outstanding.iter().position(exact).or_else(|| outstanding.iter().position(same));
        let answered = answered.or_else(|| outstanding.iter().position(foreign));
        let at = answered.or_else(|| outstanding.iter().position(idle)).unwrap_or(0);
        self.registers.remove(at);
        match outstanding.remove(at) {
            Some(request) => answered.is_some() && request.flags().contains(Flags::FOREIGN),
            None => panic!("a response was taken and none was due"),
        }
    }

    /// What the page's own counters say is free; for the check of invariants.
    pub fn free_by_page(&self) -> Option<u32> {
        self.front.as_ref().map(Front::free)
    }

    /// The private counters of the ring, where there is one.
    pub fn counters(&self) -> Option<FrontState> {
        self.front.as_ref().map(Front::state)
    }

    /// A channel as it was, on a page that looks as if all responses up to the counters had been taken.
    ///
    /// # Errors
    /// A sentence, where state and counters do not fit each other.
    pub fn restore(ring: Ring, state: RingState, counters: Option<FrontState>) -> Result<Channel, String> {
        let has_page = matches!(state.phase, RingPhase::Live | RingPhase::Draining);
        if has_page != counters.is_some() {
            let what = if has_page { "has no counters" } else { "is not in use and has counters" };
            return Err(format!("the {ring} ring {what}"));
        }
        let front = counters.map(|counters| Front::restore(RingPage::heap(), ring, state.layout, counters));
        let front = front.transpose()?;
        if front.as_ref().is_some_and(|front| front.slots() != state.slots) {
            return Err(format!("the {ring} ring has two numbers of slots"));
        }
        let held = state.outstanding.len() as u64 + u64::from(state.flow.targets) + u64::from(state.flow.foreigners);
        if held > u64::from(state.slots) {
            return Err(format!("{held} slots of the {ring} ring are held of {}", state.slots));
        }
        if !state.outstanding.iter().all(Packed::is_whole) {
            return Err(format!("a request in the {ring} ring's state is none"));
        }
        let registers = match state.layout {
            Layout::VmEvent7 => vec![None; state.outstanding.len()].into(),
            Layout::Flags16 | Layout::Flags32 => VecDeque::new(),
        };
        Ok(Channel { ring, state, front, registers })
    }

    /// The ring's page, where there is one.
    pub fn page(&self) -> Option<&RingPage> {
        self.front.as_ref().map(Front::page)
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, Claimed};
    use crate::control::{Layout, Ring};
    use crate::event::{Event, Flags, Request};
    use crate::number::{Gfn, VcpuId, ViewId};
    use crate::rights::Rights;

    const REQUEST: Request = Request {
        flags: Flags::NONE,
        vcpu: VcpuId(0),
        event: Event::Violation { gfn: Gfn(0), offset: 0, gla: None, rights: Rights::R, in_gpt: false },
        view: ViewId::HOST,
    };

    #[test]
    fn a_claim_that_outlives_its_ring_is_void() {
        let mut channel = Channel::new(Ring::Access);
        for put in [true, false] {
            channel.open(Layout::Flags32, 2, None).unwrap();
            let Claimed::Slot(claim) = channel.claim() else { panic!("there is room") };
            channel.close();
            channel.open(Layout::Flags32, 2, None).unwrap();
            if put {
                assert_eq!(channel.put(claim, &REQUEST, None), None);
            } else {
                channel.cancel(claim);
            }
            assert_eq!((channel.available(), channel.state.flow.targets), (2, 0));
            channel.close();
        }
    }

    #[test]
    fn each_claim_goes_back_to_its_own_account() {
        let mut channel = Channel::new(Ring::Access);
        channel.open(Layout::Flags32, 4, None).unwrap();
        let Claimed::Slot(foreign) = channel.claim_foreign() else { panic!("there is room") };
        let Claimed::Slot(target) = channel.claim() else { panic!("there is room") };
        channel.cancel(foreign);
        assert_eq!((channel.state.flow.targets, channel.state.flow.foreigners), (1, 0));
        assert_eq!(channel.put(target, &REQUEST, None), Some(0));
        assert_eq!((channel.state.flow.targets, channel.available()), (0, 3));
    }
}
