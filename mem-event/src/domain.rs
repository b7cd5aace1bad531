//! The domain: what the engine keeps of one guest, and the one dispatch into it.
//!
//! Every step is [`Domain::apply`]: it takes an [`Input`], changes the state, appends [`Effects`] and answers an [`Outcome`].
//! The effects of a step are carried out, in order, before the next step's.

use crate::beyond::Beyond;
use crate::budget::Budget;
use crate::channel::Channel;
use crate::control::{Layout, NoConsumer, Ring};
use crate::effect::{Effect, Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Flags, Request};
use crate::historic::Historic;
use crate::input::{DomainConfig, Input, With};
use crate::life::Life;
use crate::message::Info;
use crate::modes::Monitor;
use crate::number::{Gfn, VcpuId};
use crate::p2m::{P2m, P2mType};
use crate::packed::Packed;
use crate::published::PublishedRights;
use crate::registers::Registers;
use crate::rights::AccessType;
use crate::ring_state::{Claim, Claimed, RingPhase};
use crate::shares::Shares;
use crate::vcpu::{Vcpu, Wait};
use std::sync::Arc;

/// One guest's memory events: three channels, the p2m, the vCPUs and the frame budget.
#[derive(Debug)]
pub struct Domain {
    pub(crate) config: DomainConfig,
    pub(crate) life: Life,
    pub(crate) channels: [Channel; 3],
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) p2m: P2m,
    pub(crate) budget: Budget,
    pub(crate) shares: Shares,
    pub(crate) beyond: Beyond,
    pub(crate) monitor: Monitor,
    pub(crate) default_access: AccessType,
    /// Flow controls of Xen's history, where a ring has one.
    pub(crate) historic: Option<Box<Historic>>,
    /// A foreign caller was told to try again.
    pub(crate) foreign_waits: bool,
    /// The record of what crosses ring pages is kept; nothing that the domain does depends on it.
    pub(crate) record: bool,
    /// This step made room that a foreign caller may have waited for.
    pub(crate) room: bool,
}

impl Domain {
    /// A domain whose RAM holds memory everywhere, with all rights, no ring and no budget.
    ///
    /// # Errors
    /// A sentence, where the number of vCPUs is not 1 to 4096 or the RAM ranges are empty, unordered, overlapping or too high.
    pub fn new(config: DomainConfig) -> Result<Domain, String> {
        if !(1..=4096).contains(&config.vcpus) {
            return Err(format!("{} vCPUs where 1 to 4096 are possible", config.vcpus));
        }
        let p2m = P2m::new(&config.ram, config.vcpus)?;
        Ok(Domain {
            vcpus: vec![Vcpu::default(); config.vcpus as usize],
            config,
            life: Life::Alive,
            channels: Ring::ALL.map(Channel::new),
            p2m,
            budget: Budget::new(),
            shares: Shares::default(),
            beyond: Beyond::default(),
            monitor: Monitor::default(),
            default_access: AccessType::Rwx,
            historic: None,
            foreign_waits: false,
            record: true,
            room: false,
        })
    }

    /// Whether requests on the access ring carry registers.
    #[must_use]
    pub fn carries_registers(&self) -> bool {
        let state = &self.channels[Ring::Access.index()].state;
        state.phase != RingPhase::Absent && state.layout == Layout::VmEvent7
    }

    /// Whether steps keep the record of what crosses ring pages: [`Effect::Requested`], [`Effect::Answered`] and
    /// [`Effects::taken`]. They do from the start. Without it an event costs a fifth less, and the steps do not replay.
    pub fn keep_record(&mut self, record: bool) {
        self.record = record;
    }

    /// One step. Effects are appended; the caller clears the list between steps.
    pub fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome {
        match input {
            Input::Access { vcpu, access } => self.access(*vcpu, access, with.registers, effects),
            Input::AccessNosleep { vcpu, access } => self.access_nosleep(*vcpu, access, with.registers, effects),
            Input::Foreign { access } => self.foreign(access, effects),
            Input::Kick { ring } => self.kick(*ring, with.until, effects),
            Input::Control(control) => self.control(control, with.page, effects),
            Input::Unpopulated { first, count } => self.unpopulated(*first, *count, effects),
            Input::FillFailed { gfn } => self.fill_failed(*gfn, effects),
            Input::ConsumerLost { ring } => self.consumer_lost(*ring, effects),
            Input::Destroy => self.destroy(effects),
            Input::CpuEvent { vcpu, event } => self.cpu_event(*vcpu, event, with.registers, effects),
            Input::Balloon { vcpu, gfn } => self.balloon(*vcpu, *gfn, effects),
            Input::Abandon { vcpu } => self.abandon(*vcpu, effects),
            Input::Emulated { vcpu } => self.emulated(*vcpu),
            Input::Reset => self.reset(effects),
        }
    }

    /// The table that the fast path reads: per frame the rights that pass without the engine.
    #[must_use]
    pub fn rights(&self) -> Arc<PublishedRights> {
        Arc::clone(self.p2m.published())
    }

    /// The domain's figures.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            vcpus: u64::from(self.config.vcpus),
            frames: self.config.ram.iter().map(|(_, count)| count).sum(),
            resident: self.resident(),
            paged: self.p2m.paged(),
            budget: self.budget.frames,
        }
    }

    /// What a vCPU waits for; `None` while it runs, and for a vCPU that does not exist.
    #[must_use]
    pub fn waiting(&self, vcpu: VcpuId) -> Option<WaitReason> {
        match self.vcpus.get(vcpu.0 as usize)?.wait {
            Wait::Nothing => None,
            Wait::Paused(ring) => Some(WaitReason::Answer(ring)),
            Wait::Queued(ring) if self.channels[ring.index()].has_consumer() => Some(WaitReason::Slot(ring)),
            Wait::Queued(ring) => Some(WaitReason::Consumer(ring)),
            Wait::Frame => Some(WaitReason::Frame),
        }
    }

    /// How many events hold a vCPU paused: 0 or 1, since a paused vCPU makes no further event.
    #[must_use]
    pub fn pause_count(&self, vcpu: VcpuId) -> u32 {
        u32::from(matches!(self.waiting(vcpu), Some(WaitReason::Answer(_))))
    }

    /// The type of a frame; `MmioDm` outside of RAM.
    #[must_use]
    pub fn p2m_type(&self, gfn: Gfn) -> P2mType {
        self.p2m.get(gfn).kind
    }

    /// What up to so many frames are, from this one on, and whether memory is behind each; none above the last frame.
    pub fn types(&self, first: Gfn, count: u64) -> impl Iterator<Item = (P2mType, bool)> {
        let end = first.0.saturating_add(count).min(self.p2m.end());
        (first.0..end).map(|gfn| self.p2m.get(Gfn(gfn))).map(|entry| (entry.kind, entry.held))
    }

    /// Whether memory is behind a frame now, so that its content can be copied.
    #[must_use]
    pub fn is_held(&self, gfn: Gfn) -> bool {
        self.p2m.get(gfn).held || self.beyond.has(gfn)
    }

    /// Whether any vCPU is stopped: what stopped it must stay in its way, though its cause may be gone.
    #[must_use]
    pub fn holds_vcpus(&self) -> bool {
        self.vcpus.iter().any(|vcpu| vcpu.wait != Wait::Nothing)
    }

    /// Whether any frame has less than all rights, so that accesses must be checked at all.
    #[must_use]
    pub fn is_watching(&self) -> bool {
        self.p2m.is_watching()
    }

    /// Whether any frame may be written and not read, which no mapping of a host can say.
    #[must_use]
    pub fn is_watching_write_only(&self) -> bool {
        self.p2m.is_watching_write_only()
    }

    /// Whether any frame may not be executed, so that fetches must be checked.
    #[must_use]
    pub fn is_watching_execution(&self) -> bool {
        self.p2m.is_watching_execution()
    }

    /// The access type of a frame; `Rwx` outside of RAM.
    #[must_use]
    pub fn access_type(&self, gfn: Gfn) -> AccessType {
        self.p2m.get(gfn).access
    }

    /// Free slots of a ring, 0 where there is no ring.
    #[must_use]
    pub fn free_slots(&self, ring: Ring) -> u32 {
        let channel = &self.channels[ring.index()];
        let flow = self.historic.as_ref().and_then(|it| it.of(ring));
        flow.map_or_else(|| channel.available(), |flow| channel.free().saturating_sub(flow.claims()))
    }

    /// Why a ring takes no more requests, where its consumer broke it.
    #[must_use]
    pub fn broken(&self, ring: Ring) -> Option<&str> {
        match &self.channels[ring.index()].state.phase {
            RingPhase::Broken(why) => Some(why),
            _ => None,
        }
    }

    pub(crate) fn channel(&mut self, ring: Ring) -> &mut Channel {
        &mut self.channels[ring.index()]
    }

    pub(crate) fn vcpu(&mut self, vcpu: VcpuId) -> &mut Vcpu {
        &mut self.vcpus[vcpu.0 as usize]
    }

    /// What a vCPU is told before anything else is checked: the domain is gone, the vCPU does not exist, or it is stopped.
    #[inline]
    pub(crate) fn stopped(&self, vcpu: VcpuId) -> Option<Outcome> {
        if self.life != Life::Alive {
            return Some(Outcome::Crashed);
        }
        match self.vcpus.get(vcpu.0 as usize) {
            None => Some(Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}"))),
            Some(it) if it.wait == Wait::Nothing => None,
            Some(_) => self.waiting(vcpu).map(Outcome::Wait),
        }
    }

    /// A slot for a vCPU's request. Where there is none the vCPU stands in the queue, and `Err` is what it does instead.
    /// `PLAIN`: no ring of the domain has a flow control of Xen's history, and nothing asks for one.
    #[inline(always)]
    pub(crate) fn claim<const PLAIN: bool>(
        &mut self,
        vcpu: VcpuId,
        ring: Ring,
        effects: &mut Effects,
    ) -> Result<Claim, Outcome> {
        if self.vcpu(vcpu).slot == Some(ring) {
            self.vcpu(vcpu).slot = None;
            let historic = !PLAIN && self.is_historic(ring);
            return Ok(if historic { Claim::historic(false) } else { self.channel(ring).redeem() });
        }
        if !PLAIN
            && self.historic.is_some()
            && let Some(claimed) = self.claim_by_policy(vcpu, ring)
        {
            return claimed;
        }
        match self.channel(ring).claim() {
            Claimed::Slot(claim) => Ok(claim),
            Claimed::Full => Err(self.queue_up(vcpu, ring)),
            Claimed::NoConsumer => Err(self.without_consumer(vcpu, ring, effects)),
        }
    }

    #[cold]
    fn without_consumer(&mut self, vcpu: VcpuId, ring: Ring, effects: &mut Effects) -> Outcome {
        if self.is_historic(ring) {
            return self.without_listener_by_policy(vcpu, ring, effects);
        }
        let state = &self.channels[ring.index()].state;
        // A draining ring decides what follows when it has ended.
        if state.policy == NoConsumer::Crash && state.phase != RingPhase::Draining {
            return self.crash(format!("vCPU {vcpu} needs the {ring} ring, which has no consumer"), effects);
        }
        self.queue_up(vcpu, ring)
    }

    #[cold]
    fn queue_up(&mut self, vcpu: VcpuId, ring: Ring) -> Outcome {
        self.vcpu(vcpu).wait = Wait::Queued(ring);
        let channel = self.channel(ring);
        channel.state.flow.waiters.push_back(vcpu);
        Outcome::Wait(if channel.has_consumer() { WaitReason::Slot(ring) } else { WaitReason::Consumer(ring) })
    }

    /// Stops a vCPU for an event, before the event can be seen.
    #[inline(always)]
    pub(crate) fn pause(&mut self, vcpu: VcpuId, ring: Ring, gfn: Gfn) {
        let it = self.vcpu(vcpu);
        it.wait = Wait::Paused(ring);
        it.stopped_on = gfn;
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, ring: Ring, claim: Claim, request: Request, effects: &mut Effects) {
        self.put_with::<false>(ring, claim, request, None, effects);
    }

    /// [`Domain::put`] with the registers of the request's vCPU; `PLAIN` as in [`Domain::claim`].
    #[inline(always)]
    pub(crate) fn put_with<const PLAIN: bool>(
        &mut self,
        ring: Ring,
        claim: Claim,
        request: Request,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) {
        let (historic, foreign) = (!PLAIN && claim.is_historic(), claim.foreign);
        let request = if PLAIN || foreign { request } else { self.with_view(ring, request) };
        if let Some(slot) = self.channel(ring).put(claim, &request, registers) {
            if self.record {
                effects.push(|| Effect::Requested { ring, slot, request });
            }
            effects.push(|| Effect::Notify(ring));
        } else if historic {
            self.put_by_policy(ring, foreign, Packed::new(&request), registers, effects);
        }
    }

    /// Where there are views a request tells its vCPU's, in the layout that has room for it (`monitor_traps`).
    #[inline]
    fn with_view(&self, ring: Ring, request: Request) -> Request {
        if ring == Ring::Access && self.has_views() && self.carries_registers() {
            let flags = request.flags.union(Flags::ALTERNATE_P2M);
            return Request { flags, view: self.view_of(request.vcpu), ..request };
        }
        request
    }

    /// Hands every slot that is free to the vCPUs that wait for one, oldest first.
    #[inline(always)]
    pub(crate) fn grant_slots(&mut self, ring: Ring, effects: &mut Effects) {
        self.room = true;
        if !self.channel(ring).state.flow.waiters.is_empty() {
            self.serve_queue(ring, effects);
        }
    }

    #[inline(never)]
    fn serve_queue(&mut self, ring: Ring, effects: &mut Effects) {
        while let Some(vcpu) = self.channel(ring).grant() {
            let it = self.vcpu(vcpu);
            assert!(it.wait == Wait::Queued(ring), "vCPU {vcpu} stands in the {ring} ring's queue and does not wait");
            it.wait = Wait::Nothing;
            it.slot = Some(ring);
            effects.push(|| Effect::Wake(vcpu));
        }
    }

    /// Gives back what was reserved for a woken vCPU and was not needed after all.
    #[inline]
    pub(crate) fn return_grants(&mut self, vcpu: VcpuId, effects: &mut Effects) {
        if let Some(ring) = self.vcpu(vcpu).slot.take() {
            if self.is_historic(ring) {
                self.cancel_by_policy(vcpu, ring, effects);
            } else {
                let channel = self.channel(ring);
                let claim = channel.redeem();
                channel.cancel(claim);
                self.grant_slots(ring, effects);
            }
        }
        if std::mem::take(&mut self.vcpu(vcpu).frame) {
            self.budget.granted -= 1;
            self.grant_frames(effects);
        }
    }

    /// Whether something is reserved for or granted to this vCPU, a foreign caller waits for room, a ring has a flow control of Xen's history,
    /// or the domain has views.
    #[inline]
    pub(crate) fn has_loose_ends(&self, vcpu: VcpuId) -> bool {
        let it = &self.vcpus[vcpu.0 as usize];
        self.foreign_waits
            || self.historic.is_some()
            || self.has_views()
            || it.slot.is_some()
            || it.frame
            || it.emulation.is_some()
    }

    /// Tells foreign callers to retry, once a step, if room was made and one of them waits.
    #[inline]
    pub(crate) fn end_step(&mut self, effects: &mut Effects) {
        if std::mem::take(&mut self.room) && self.foreign_waits {
            self.foreign_waits = false;
            effects.list.push(Effect::RetryForeign);
        }
    }

    /// A foreign caller must come back.
    pub(crate) fn retry(&mut self, errno: Errno) -> Outcome {
        self.foreign_waits = true;
        self.room = false;
        Outcome::Retry(errno)
    }
}
