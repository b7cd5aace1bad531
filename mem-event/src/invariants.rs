//! What holds between any two steps.

use crate::altp2m::View;
use crate::control::Ring;
use crate::domain::Domain;
use crate::historic::Sleeper;
use crate::life::Life;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::p2m::{Entry, P2m, P2mType};
use crate::rights::Rights;
use crate::ring_state::RingPhase;
use crate::vcpu::Wait;

/// Fails with a sentence.
macro_rules! holds {
    ($condition:expr, $($sentence:tt)*) => {
        if !$condition {
            return Err(format!($($sentence)*));
        }
    };
}

impl Domain {
    /// Checks everything that must hold between two steps. It reads the whole p2m: for tests, and for who suspects something.
    ///
    /// # Errors
    /// A sentence that says what does not hold.
    pub fn check_invariants(&self) -> Result<(), String> {
        for ring in Ring::ALL {
            self.check_channel(ring)?;
        }
        self.check_waits()?;
        self.check_views()?;
        self.check_p2m()?;
        self.check_frames()
    }

    fn check_channel(&self, ring: Ring) -> Result<(), String> {
        let channel = &self.channels[ring.index()];
        let state = &channel.state;
        let outstanding = u32::try_from(state.outstanding.len()).unwrap_or(u32::MAX);
        let held = outstanding + state.flow.targets + state.flow.foreigners;
        holds!(held <= state.slots, "{held} slots of the {ring} ring are held of {}", state.slots);
        if let Some(free) = channel.free_by_page() {
            let due = state.slots - free;
            holds!(due == outstanding, "{due} answers are due on the {ring} ring's page, {outstanding} in its state");
        }
        if self.is_historic(ring) {
            return self.check_historic(ring);
        }
        let granted = self.vcpus.iter().filter(|it| it.slot == Some(ring)).count();
        holds!(state.flow.targets as usize == granted, "{} claims, {granted} holders ({ring})", state.flow.targets);
        holds!(state.flow.foreigners == 0, "{} foreign claims between steps ({ring})", state.flow.foreigners);
        let queued = self.vcpus.iter().filter(|it| it.wait == Wait::Queued(ring)).count();
        holds!(state.flow.waiters.len() == queued, "{} in the {ring} queue, {queued} wait", state.flow.waiters.len());
        for vcpu in &state.flow.waiters {
            let wait = self.vcpus[vcpu.0 as usize].wait;
            holds!(wait == Wait::Queued(ring), "vCPU {vcpu} is in the {ring} queue and is {wait:?}");
        }
        let could_go_on = channel.has_consumer() && queued > 0 && held < state.slots;
        holds!(!could_go_on, "{queued} vCPUs wait for the {ring} ring, which has free slots");
        let paused = self.vcpus.iter().any(|it| it.is_paused_by(ring));
        holds!(!(paused && state.phase == RingPhase::Absent), "a vCPU waits for an answer from no {ring} ring");
        Ok(())
    }

    /// What holds of a ring whose flow control is one of Xen's history. It is little: that is what they are kept for.
    fn check_historic(&self, ring: Ring) -> Result<(), String> {
        let Some(historic) = &self.historic else { return Ok(()) };
        let agrees = historic.of(ring).is_none_or(|flow| flow.agrees(&historic.stops));
        holds!(agrees, "the {ring} ring throttles others than have its flag");
        holds!(historic.stops.woken.is_empty(), "vCPUs were woken and not told");
        for vcpu in historic.waiters(ring).into_iter().flatten() {
            let wait = self.vcpus[vcpu.0 as usize].wait;
            holds!(wait == Wait::Queued(ring), "vCPU {vcpu} is in the {ring} queue and is {wait:?}");
        }
        for (vcpu, it) in self.vcpus.iter().enumerate() {
            let sleeper = self.sleeper(vcpu).is_some_and(|it| it.ring == ring);
            let sleeps = it.wait == Wait::Queued(ring) || it.slot == Some(ring);
            holds!(sleeper == sleeps, "vCPU {vcpu} sleeps on the {ring} ring and it does not know, or the other way");
        }
        Ok(())
    }

    fn sleeper(&self, vcpu: usize) -> Option<&Sleeper> {
        self.historic.as_ref()?.sleepers.get(&VcpuId(u32::try_from(vcpu).ok()?))
    }

    fn check_waits(&self) -> Result<(), String> {
        let ended = self.life != Life::Alive;
        for (vcpu, it) in self.vcpus.iter().enumerate() {
            let waits = it.wait != Wait::Nothing;
            holds!(!(ended && waits), "vCPU {vcpu} waits ({:?}) though the domain has ended", it.wait);
            let granted = it.slot.is_some() || it.frame;
            holds!(!(waits && granted), "vCPU {vcpu} waits ({:?}) and holds what it waits for", it.wait);
            let paused = it.is_paused_by(Ring::Access) || self.sleeper(vcpu).is_some();
            holds!(it.reported.is_none() || paused, "vCPU {vcpu} has an event out and runs");
        }
        Ok(())
    }

    fn check_p2m(&self) -> Result<(), String> {
        let published = self.p2m.published();
        for (at, entry) in self.p2m.entries().enumerate() {
            let gfn = Gfn(at as u64);
            let (kind, held) = (entry.kind, entry.held);
            let legal = match kind {
                P2mType::RamRw | P2mType::RamPagingOut | P2mType::RamShared => held,
                P2mType::RamPagingIn => true,
                P2mType::Invalid | P2mType::MmioDm | P2mType::PopulateOnDemand | P2mType::RamPaged => !held,
                _ => false,
            };
            holds!(legal, "frame {gfn} is {kind} with memory {held}");
            holds!(entry.pins == 0 || held, "frame {gfn} is {kind}, mapped by a foreign caller and not there");
            let allowed = published.allowed(gfn);
            let passing = self.passing_for_all(gfn);
            holds!(allowed == passing, "frame {gfn} publishes {allowed}, holds {passing}");
            for (vcpu, it) in (0..).map(VcpuId).zip(&self.vcpus) {
                let (allowed, passing) = (published.allowed_to(vcpu, gfn), self.p2m.passing_in(it.view, gfn));
                holds!(allowed == passing, "frame {gfn} publishes {allowed} for vCPU {vcpu}, holds {passing}");
            }
            let shared = self.shares.handles.contains_key(&gfn.0);
            holds!(shared == (kind == P2mType::RamShared), "frame {gfn} is {kind}, in a group of sharers: {shared}");
        }
        let shared = self.p2m.entries().filter(|entry| entry.kind == P2mType::RamShared).count();
        let handles = self.shares.handles.len();
        holds!(shared == handles, "{shared} frames are shared, {handles} have a handle");
        Ok(())
    }

    /// What every vCPU may do with a frame, by its view.
    fn passing_for_all(&self, gfn: Gfn) -> Rights {
        let all = self.vcpus.iter().map(|it| self.p2m.passing_in(it.view, gfn));
        all.fold(Rights::RWX, Rights::intersection)
    }

    fn check_views(&self) -> Result<(), String> {
        for (vcpu, it) in self.vcpus.iter().enumerate() {
            let exists = self.p2m.views().map_or(it.view == ViewId::HOST, |views| views.has(it.view));
            holds!(exists, "vCPU {vcpu} goes by view {}, which there is not", it.view);
        }
        for view in ViewId::all() {
            let count = self.vcpus.iter().filter(|it| it.view == view).count();
            let active = self.p2m.views().is_some_and(|views| views.is_active(view));
            holds!(!self.has_views() || active == (count > 0), "{count} vCPUs go by view {view}; active: {active}");
        }
        self.check_shown()
    }

    /// What a view shows stays where it is.
    fn check_shown(&self) -> Result<(), String> {
        let views = ViewId::all().filter_map(|view| self.p2m.views()?.get(view)).map(View::settings);
        for (gfn, other) in views.flat_map(|settings| &settings.shown).map(|(gfn, other)| (Gfn(*gfn), Gfn(*other))) {
            let (ram, beyond) = (self.p2m.get(other), self.beyond.pins(other));
            let is_kept = ram.held && ram.pins > 0 || beyond.is_some_and(|pins| pins > 0);
            holds!(is_kept, "frame {gfn} shows frame {other}, which may go");
        }
        let is_apart = |gfn: Gfn| (self.p2m.end()..P2m::LARGEST).contains(&gfn.0);
        holds!(self.beyond.all().all(|(gfn, _)| is_apart(gfn)), "a frame beyond RAM is RAM");
        Ok(())
    }

    fn check_frames(&self) -> Result<(), String> {
        let count = |what: fn(&Entry) -> bool| self.p2m.entries().filter(what).count() as u64;
        let (counted, held) = (self.p2m.held(), count(|entry| entry.held));
        holds!(counted == held, "{counted} frames with memory are counted, {held} in the p2m");
        let (counted, out) = (self.p2m.paged(), count(|entry| entry.is_paged_out()));
        holds!(counted == out, "{counted} frames paged out are counted, {out} in the p2m");
        let granted = self.budget.granted;
        let holders = self.vcpus.iter().filter(|it| it.frame).count() as u64;
        holds!(granted == holders, "{granted} frames reserved for {holders} vCPUs");
        let waiting = self.vcpus.iter().filter(|it| it.wait == Wait::Frame).count();
        let queued = self.budget.queue.len();
        holds!(queued == waiting, "{queued} in the queue for frames, {waiting} wait");
        let idle = self.available();
        holds!(queued == 0 || idle == 0, "{queued} vCPUs wait for a frame, {idle} are free");
        Ok(())
    }
}
