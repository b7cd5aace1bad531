//! The engine once more, plain and slow: no counters that could drift, no queues that could lose somebody. What the engine keeps is
//! computed here from scratch at each step: who waits longest is a search, how many slots are free is a count.

#![allow(clippy::cast_possible_truncation, reason = "the games are small")]

use mem_event::{
    About, Access, AccessType, Control, Cpu, CpuEvent, CpuEventKind, DescriptorTable, Effect, Errno, Event, Flags, Gfn,
    Input, MonitorMode, NoConsumer, Outcome, P2mType, Request, Response, Rights, Ring, Trap, TrapKind, VcpuId,
    WaitReason,
};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Runs,
    Answer(Ring),
    Queue(Ring),
    Frame,
}

#[derive(Clone, Debug)]
pub struct Vcpu {
    pub wait: Wait,
    /// When it began to wait.
    since: u64,
    slot: Option<Ring>,
    frame: bool,
    stepping: bool,
    reported: Option<CpuEvent>,
    answered: Option<CpuEvent>,
    /// Its last violation that stopped it: instruction, frame, rights.
    stopped: (u64, Gfn, Rights),
    /// The one of these that it may do once, alone.
    alone: Option<(u64, Gfn, Rights)>,
    /// The view that it goes by.
    pub view: u16,
}

/// What a view says: of all frames, and of some; and which show others.
type View = (AccessType, BTreeMap<u64, AccessType>, BTreeMap<u64, u64>);

impl Vcpu {
    fn new() -> Vcpu {
        Vcpu {
            wait: Wait::Runs,
            since: 0,
            slot: None,
            frame: false,
            stepping: false,
            reported: None,
            answered: None,
            stopped: (0, Gfn(0), Rights::NONE),
            alone: None,
            view: 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub kind: P2mType,
    pub access: AccessType,
    pub held: bool,
    chosen: bool,
    pins: u8,
    /// Some view shows its memory elsewhere.
    shown: bool,
    group: u64,
}

impl Frame {
    fn stays(&self) -> bool {
        self.pins > 0 || self.shown
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Absent,
    Live,
    Draining,
    Lost,
    Broken,
}

#[derive(Clone, Debug)]
pub struct Channel {
    pub standing: Standing,
    pub slots: usize,
    pub policy: NoConsumer,
    pub due: Vec<Request>,
}

#[derive(Clone, Debug)]
pub struct Reference {
    pub vcpus: Vec<Vcpu>,
    pub frames: Vec<Frame>,
    pub channels: [Channel; 3],
    pub budget: u64,
    default: AccessType,
    modes: BTreeMap<u8, (MonitorMode, bool)>,
    /// Of control registers the bits whose change counts for nothing.
    masks: BTreeMap<u8, u64>,
    /// Single model-specific registers.
    msrs: BTreeMap<u32, (MonitorMode, bool)>,
    /// By number; nothing of the host's, which is 0.
    views: Option<Vec<Option<View>>>,
    /// Frames beyond RAM, with how many have mapped each.
    beyond: BTreeMap<u64, u8>,
    groups: u64,
    clock: u64,
    pub dead: bool,
    /// What the step brought about, without slots and sentences.
    pub effects: Vec<Effect>,
}

type Done = Result<(), Outcome>;

fn refused(errno: Errno) -> Outcome {
    Outcome::Refused(errno, String::new())
}

impl Reference {
    pub fn new(vcpus: u32, frames: usize) -> Reference {
        let vcpu = Vcpu::new();
        let frame = Frame {
            kind: P2mType::RamRw,
            access: AccessType::Rwx,
            held: true,
            chosen: false,
            pins: 0,
            shown: false,
            group: 0,
        };
        let channel = Channel { standing: Standing::Absent, slots: 0, policy: NoConsumer::Wait, due: Vec::new() };
        Reference {
            vcpus: vec![vcpu; vcpus as usize],
            frames: vec![frame; frames],
            channels: [channel.clone(), channel.clone(), channel],
            budget: u64::MAX,
            default: AccessType::Rwx,
            modes: BTreeMap::new(),
            masks: BTreeMap::new(),
            msrs: BTreeMap::new(),
            views: None,
            beyond: BTreeMap::new(),
            groups: 0,
            clock: 0,
            dead: false,
            effects: Vec::new(),
        }
    }

    /// One step. `posted` are the responses on the ring that the step may look at; `broken`: its index cannot be.
    pub fn step(&mut self, input: &Input, posted: &[Response], broken: bool) -> Outcome {
        self.effects.clear();
        self.clock += 1;
        let outcome = match input {
            Input::Access { vcpu, access } => self.as_vcpu(*vcpu, |it, v| it.look(v, access)),
            Input::AccessNosleep { vcpu, access } => self.nosleep(*vcpu, access),
            Input::CpuEvent { vcpu, event } => self.as_vcpu(*vcpu, |it, v| it.report(v, event)),
            Input::Balloon { vcpu, gfn } => self.as_vcpu(*vcpu, |it, v| it.balloon(v, *gfn)),
            Input::Foreign { access } => self.foreign(access),
            Input::Kick { ring } => self.kick(*ring, posted, broken),
            Input::Control(control) => self.control(control, posted, broken),
            Input::Unpopulated { first, count } => self.unpopulated(first.0, *count),
            Input::FillFailed { gfn } => self.fill_failed(*gfn),
            Input::ConsumerLost { ring } => self.lost(*ring, posted, broken),
            Input::Abandon { vcpu } => self.abandon(*vcpu),
            Input::Emulated { vcpu } => self.emulated(*vcpu),
            Input::Reset => self.reset(),
            Input::Destroy => unreachable!("not part of the game"),
        };
        self.grant();
        outcome
    }

    fn channel(&mut self, ring: Ring) -> &mut Channel {
        &mut self.channels[ring.index()]
    }

    pub fn live(&self, ring: Ring) -> bool {
        self.channels[ring.index()].standing == Standing::Live
    }

    pub fn free(&self, ring: Ring) -> usize {
        let channel = &self.channels[ring.index()];
        channel.slots - channel.due.len() - self.vcpus.iter().filter(|it| it.slot == Some(ring)).count()
    }

    pub fn resident(&self) -> u64 {
        let mut groups: Vec<u64> = self.frames.iter().map(|frame| frame.group).filter(|group| *group != 0).collect();
        groups.sort_unstable();
        groups.dedup();
        let own = self.frames.iter().filter(|frame| frame.held && frame.group == 0).count();
        (own + groups.len()) as u64
    }

    pub fn paged(&self) -> u64 {
        self.frames.iter().filter(|frame| frame.kind.is_paging() && !frame.held).count() as u64
    }

    fn spare(&self) -> u64 {
        let promised = self.vcpus.iter().filter(|it| it.frame).count() as u64;
        self.budget.saturating_sub(self.resident() + promised)
    }

    fn frame(&mut self, gfn: Gfn) -> Option<&mut Frame> {
        self.frames.get_mut(usize::try_from(gfn.0).ok()?)
    }

    /// Whoever waits longest gets what there is.
    fn grant(&mut self) {
        for ring in Ring::ALL {
            while self.live(ring) && self.free(ring) > 0 {
                let Some(it) = self.oldest(Wait::Queue(ring)) else { break };
                it.wait = Wait::Runs;
                it.slot = Some(ring);
            }
        }
        while self.spare() > 0 {
            let Some(it) = self.oldest(Wait::Frame) else { break };
            it.wait = Wait::Runs;
            it.frame = true;
        }
    }

    fn oldest(&mut self, wait: Wait) -> Option<&mut Vcpu> {
        let waiting = self.vcpus.iter().enumerate().filter(|(_, it)| it.wait == wait);
        let (at, _) = waiting.min_by_key(|(_, it)| it.since)?;
        self.effects.push(Effect::Wake(VcpuId(u32::try_from(at).ok()?)));
        self.vcpus.get_mut(at)
    }

    fn wake_where(&mut self, which: impl Fn(&Vcpu) -> bool) {
        for (vcpu, it) in (0..).zip(&mut self.vcpus) {
            if it.wait != Wait::Runs && which(it) {
                it.wait = Wait::Runs;
                it.reported = None;
                self.effects.push(Effect::Wake(VcpuId(vcpu)));
            }
        }
    }

    fn as_vcpu(&mut self, vcpu: VcpuId, act: impl FnOnce(&mut Reference, usize) -> Done) -> Outcome {
        let v = vcpu.0 as usize;
        if self.dead {
            return Outcome::Crashed;
        }
        if v >= self.vcpus.len() {
            return refused(Errno::ESRCH);
        }
        if let Some(reason) = self.waiting(v) {
            return Outcome::Wait(reason);
        }
        let outcome = act(self, v).err().unwrap_or(Outcome::Proceed);
        if self.vcpus[v].wait != Wait::Runs {
            self.vcpus[v].since = self.clock;
        }
        self.vcpus[v].slot = None;
        self.vcpus[v].frame = false;
        outcome
    }

    fn nosleep(&mut self, vcpu: VcpuId, access: &Access) -> Outcome {
        let waited = self.vcpus.get(vcpu.0 as usize).is_some_and(|it| it.wait != Wait::Runs);
        let outcome = self.as_vcpu(vcpu, |it, v| it.look(v, access));
        let Some(it) = self.vcpus.get_mut(vcpu.0 as usize).filter(|_| !waited) else { return outcome };
        match it.wait {
            Wait::Runs | Wait::Answer(_) => outcome,
            Wait::Queue(_) | Wait::Frame => {
                let errno = if it.wait == Wait::Frame { Errno::ENOMEM } else { Errno::EBUSY };
                it.wait = Wait::Runs;
                Outcome::Retry(errno)
            }
        }
    }

    pub fn waiting(&self, v: usize) -> Option<WaitReason> {
        match self.vcpus[v].wait {
            Wait::Runs => None,
            Wait::Answer(ring) => Some(WaitReason::Answer(ring)),
            Wait::Queue(ring) if self.live(ring) => Some(WaitReason::Slot(ring)),
            Wait::Queue(ring) => Some(WaitReason::Consumer(ring)),
            Wait::Frame => Some(WaitReason::Frame),
        }
    }

    fn claim(&mut self, v: usize, ring: Ring) -> Done {
        if self.vcpus[v].slot == Some(ring) {
            // The promise becomes the request that is put next.
            self.vcpus[v].slot = None;
            return Ok(());
        }
        let channel = &self.channels[ring.index()];
        let ended = matches!(channel.standing, Standing::Absent | Standing::Lost | Standing::Broken);
        if ended && channel.policy == NoConsumer::Crash {
            return Err(self.crash());
        }
        if self.live(ring) && self.free(ring) > 0 {
            return Ok(());
        }
        self.vcpus[v].wait = Wait::Queue(ring);
        Err(Outcome::Wait(if self.live(ring) { WaitReason::Slot(ring) } else { WaitReason::Consumer(ring) }))
    }

    fn claim_foreign(&mut self, ring: Ring) -> bool {
        let waiters = self.vcpus.iter().any(|it| it.wait == Wait::Queue(ring));
        let reserve = usize::from(self.channels[ring.index()].slots > 1);
        self.live(ring) && !waiters && self.free(ring) > reserve
    }

    fn put(&mut self, ring: Ring, request: Request) {
        self.channel(ring).due.push(request);
        self.effects.push(Effect::Requested { ring, slot: 0, request });
        self.effects.push(Effect::Notify(ring));
    }

    fn put_and_pause(&mut self, v: usize, ring: Ring, request: Request) -> Done {
        self.vcpus[v].wait = Wait::Answer(ring);
        self.put(ring, Request { flags: request.flags.union(Flags::VCPU_PAUSED), vcpu: VcpuId(v as u32), ..request });
        Err(Outcome::Wait(WaitReason::Answer(ring)))
    }

    /// What it may do alone is one instruction's; another one that asks ends it, and so does its own access once it is allowed.
    fn look(&mut self, v: usize, access: &Access) -> Done {
        let alone = self.vcpus[v].alone.take_if(|(rip, ..)| *rip == access.rip);
        self.vcpus[v].alone = alone;
        let done = self.look_at(v, access);
        if done.is_ok()
            && let Some((_, gfn, rights)) = alone
            && gfn == access.gfn
            && access.rights.contains(rights)
        {
            self.vcpus[v].alone = None;
        }
        done
    }

    fn look_at(&mut self, v: usize, access: &Access) -> Done {
        let gfn = access.gfn;
        let default = self.default;
        let Some(frame) = self.frame(gfn).copied() else { return Ok(()) };
        if matches!(frame.kind, P2mType::PopulateOnDemand | P2mType::Invalid) {
            self.take_frame(v, gfn)?;
            self.bear(gfn, default);
        }
        let Some(frame) = self.frame(gfn).copied() else { return Ok(()) };
        let violates = frame.held && !self.access_in(self.vcpus[v].view, gfn).rights().contains(access.rights);
        let alone = violates && self.vcpus[v].alone.is_some();
        if violates && !alone {
            self.check_rights(v, access)?;
        }
        if frame.kind.is_paging() {
            self.claim(v, Ring::Paging)?;
            let request = self.ask(gfn);
            return self.put_and_pause(v, Ring::Paging, request);
        }
        if frame.kind == P2mType::RamShared && access.rights.contains(Rights::W) {
            if self.company(frame.group) > 1 {
                self.take_frame(v, gfn)?;
            }
            self.part(gfn);
        }
        // Others go by views that close the memory.
        let closed = !self.common(gfn).contains(access.rights.without(Rights::X));
        let closed = closed || self.shown(self.vcpus[v].view, gfn).is_some();
        if alone || self.views.is_some() && closed { Err(Outcome::Alone) } else { Ok(()) }
    }

    pub fn access_in(&self, view: u16, gfn: Gfn) -> AccessType {
        let host = self.frames.get(gfn.0 as usize).map_or(AccessType::Rwx, |frame| frame.access);
        let view = self.views.as_ref().and_then(|views| views.get(view as usize)?.as_ref());
        view.map_or(host, |(default, own, _)| own.get(&gfn.0).copied().unwrap_or(*default))
    }

    fn set_access_in(&mut self, view: u16, gfn: Gfn, access: AccessType) {
        match self.views.as_mut().and_then(|views| views.get_mut(view as usize)?.as_mut()) {
            Some((_, own, _)) => drop(own.insert(gfn.0, access)),
            None => self.frames[gfn.0 as usize].access = access,
        }
    }

    fn passing_in(&self, view: u16, gfn: Gfn) -> Rights {
        if self.shown(view, gfn).is_some() {
            return Rights::NONE;
        }
        let rights = self.access_in(view, gfn).rights();
        match self.frames.get(gfn.0 as usize).map(|frame| frame.kind) {
            Some(P2mType::RamRw) => rights,
            Some(P2mType::RamShared) => rights.without(Rights::W),
            _ => Rights::NONE,
        }
    }

    /// What all vCPUs may do.
    fn common(&self, gfn: Gfn) -> Rights {
        let all = self.vcpus.iter().map(|it| self.passing_in(it.view, gfn).bits());
        Rights::from_bits(all.fold(7, |all, its| all & its))
    }

    fn commons(&self) -> Vec<Rights> {
        (0..self.frames.len() as u64).map(|gfn| self.common(Gfn(gfn))).collect()
    }

    /// Of frames of which all could do this, those that are less open now.
    fn tell_what_closed(&mut self, before: &[Rights]) {
        let now = self.commons();
        let closed: Vec<u64> =
            (0..now.len()).filter(|at| !now[*at].contains(before[*at])).map(|at| at as u64).collect();
        for run in closed.chunk_by(|one, next| one + 1 == *next) {
            self.effects.push(Effect::Tighten { first: Gfn(run[0]), count: run.len() as u64 });
        }
    }

    fn views(&mut self, control: &Control) -> Done {
        if let Control::SetViews { on } = *control {
            self.set_views(on);
            return Ok(());
        }
        if let Control::GetVcpuView { vcpu } | Control::SwitchVcpuView { vcpu, .. } = *control
            && vcpu.0 as usize >= self.vcpus.len()
            && (self.views.is_some() || matches!(control, Control::GetVcpuView { .. }))
        {
            let unknown = matches!(*control, Control::SwitchVcpuView { view, .. } if !self.has_view(view.0));
            return Err(refused(if unknown { Errno::EINVAL } else { Errno::ESRCH }));
        }
        let Some(views) = &mut self.views else { return Err(refused(Errno::EOPNOTSUPP)) };
        match *control {
            Control::CreateView { access } => {
                let free = (1..10).find(|at| views[*at].is_none()).ok_or(refused(Errno::EINVAL))?;
                views[free] = Some((access, BTreeMap::new(), BTreeMap::new()));
                return Err(Outcome::Value(free as u64));
            }
            Control::GetVcpuView { vcpu } => return Err(Outcome::Value(self.vcpus[vcpu.0 as usize].view.into())),
            _ => {}
        }
        let before = self.commons();
        match *control {
            Control::DestroyView { view } => self.destroy_view(view.0),
            Control::SetViewAccess { view, .. }
            | Control::GetViewAccess { view, .. }
            | Control::SetViewDefault { view, .. }
            | Control::SwitchView { view }
            | Control::SwitchVcpuView { view, .. }
            | Control::ChangeGfn { view, .. }
                if !self.has_view(view.0) =>
            {
                Err(refused(Errno::EINVAL))
            }
            Control::SetViewAccess { view, first, count, access } if view.0 == 0 => {
                self.set_access(first.0, count, access)
            }
            Control::SetViewAccess { view, first, count, access } => {
                self.set_view_access(view.0, (first, count), access)
            }
            Control::GetViewAccess { view, gfn } => Err(self.get_access(view.0, gfn)),
            Control::SetViewDefault { view, access } if view.0 == 0 => {
                self.default = access;
                Ok(())
            }
            Control::SetViewDefault { view, access } => self.set_view_default(view.0, access),
            Control::SwitchView { view } => {
                (0..self.vcpus.len()).for_each(|vcpu| self.switch(vcpu, view.0));
                self.tell_what_closed(&before);
                Ok(())
            }
            Control::SwitchVcpuView { vcpu, view } => {
                self.switch(vcpu.0 as usize, view.0);
                self.tell_what_closed(&before);
                Ok(())
            }
            Control::ChangeGfn { view, old, new } => self.change_gfn(view.0, old, new),
            _ => unreachable!("an operation that has nothing to do with views"),
        }
    }

    fn set_views(&mut self, on: bool) {
        let before = self.commons();
        if on != self.views.is_some() {
            self.views = on.then(|| vec![None; 10]);
            for (vcpu, it) in (0..).zip(&mut self.vcpus) {
                it.view = 0;
                self.effects.push(Effect::Switched(VcpuId(vcpu)));
            }
            self.note_shown();
            self.tell_what_closed(&before);
        }
    }

    fn shown(&self, view: u16, gfn: Gfn) -> Option<u64> {
        self.views.as_ref()?.get(view as usize)?.as_ref()?.2.get(&gfn.0).copied()
    }

    fn all_shown(&self) -> Vec<u64> {
        let views = self.views.iter().flatten().flatten();
        views.flat_map(|(_, _, shown)| shown.values().copied()).collect()
    }

    fn note_shown(&mut self) {
        let shown = self.all_shown();
        for (gfn, frame) in (0..).zip(&mut self.frames) {
            frame.shown = shown.contains(&gfn);
        }
    }

    fn change_gfn(&mut self, view: u16, old: Gfn, new: Gfn) -> Done {
        if view == 0 {
            return Err(refused(Errno::EINVAL));
        }
        let (before, is_ram) = (self.passing_in(view, old), (old.0 as usize) < self.frames.len());
        let is_there = |it: &Reference, gfn: u64| {
            it.beyond.contains_key(&gfn)
                || it.frames.get(gfn as usize).is_some_and(|frame| frame.kind == P2mType::RamRw)
        };
        let other = self.shown(view, new).unwrap_or(new.0);
        if new != Gfn::INVALID && !(is_there(self, old.0) && is_there(self, other)) {
            return Err(refused(Errno::ESRCH));
        }
        let (default, own, shown) = self.views.as_mut().and_then(|it| it[view as usize].as_mut()).expect("it is there");
        if new == Gfn::INVALID {
            own.remove(&old.0);
            shown.remove(&old.0);
        } else {
            shown.insert(old.0, other);
            let access = own.get(&new.0).copied().unwrap_or(*default);
            is_ram.then(|| own.insert(old.0, access));
        }
        self.note_shown();
        if !self.passing_in(view, old).contains(before) && self.vcpus.iter().any(|it| it.view == view) {
            self.effects.push(Effect::Tighten { first: old, count: 1 });
        }
        Ok(())
    }

    fn populate(&mut self, gfn: Gfn) -> Done {
        if gfn.0 < self.frames.len() as u64 {
            let (default, spare) = (self.default, self.spare());
            return match self.frame(gfn).map(|frame| frame.kind) {
                None => Err(refused(Errno::EINVAL)),
                Some(P2mType::Invalid) if spare == 0 => Err(refused(Errno::ENOMEM)),
                Some(P2mType::Invalid) => {
                    self.bear(gfn, default);
                    Ok(())
                }
                Some(_) => Err(refused(Errno::EBUSY)),
            };
        }
        if gfn.0 >= 1 << 26 {
            return Err(refused(Errno::EINVAL));
        }
        match self.beyond.insert(gfn.0, 0) {
            None => Ok(()),
            Some(pins) => {
                self.beyond.insert(gfn.0, pins);
                Err(refused(Errno::EBUSY))
            }
        }
    }

    fn drop_beyond(&mut self, gfn: Gfn, pins: u8) -> Done {
        if pins > 0 || self.all_shown().contains(&gfn.0) {
            return Err(refused(Errno::EBUSY));
        }
        self.beyond.remove(&gfn.0);
        self.views.iter_mut().flatten().flatten().for_each(|(_, _, shown)| _ = shown.remove(&gfn.0));
        self.note_shown();
        self.effects.push(Effect::Punch(gfn));
        Ok(())
    }

    fn destroy_view(&mut self, view: u16) -> Done {
        if view == 0 || !self.has_view(view) {
            return Err(refused(Errno::EINVAL));
        }
        if self.vcpus.iter().any(|it| it.view == view) {
            return Err(refused(Errno::EBUSY));
        }
        self.views.as_mut().expect("they are there")[view as usize] = None;
        self.note_shown();
        Ok(())
    }

    fn switch(&mut self, vcpu: usize, view: u16) {
        if std::mem::replace(&mut self.vcpus[vcpu].view, view) != view {
            self.effects.push(Effect::Switched(VcpuId(vcpu as u32)));
        }
    }

    fn set_view_access(&mut self, view: u16, (first, count): (Gfn, u64), access: AccessType) -> Done {
        let end = first.0.checked_add(count).filter(|end| count > 0 && *end <= self.frames.len() as u64);
        let end = end.ok_or(refused(Errno::EINVAL))?;
        let less = (first.0..end).map(Gfn).any(|gfn| {
            let before = self.passing_in(view, gfn);
            self.set_access_in(view, gfn, access);
            !self.passing_in(view, gfn).contains(before)
        });
        (first.0..end).for_each(|gfn| self.set_access_in(view, Gfn(gfn), access));
        if less && self.vcpus.iter().any(|it| it.view == view) {
            self.effects.push(Effect::Tighten { first, count });
        }
        Ok(())
    }

    fn set_view_default(&mut self, view: u16, access: AccessType) -> Done {
        let place = self.views.as_mut().and_then(|views| views[view as usize].as_mut());
        let was = std::mem::replace(&mut place.expect("it is there").0, access);
        if !access.rights().contains(was.rights()) && self.vcpus.iter().any(|it| it.view == view) {
            self.effects.push(Effect::Tighten { first: Gfn(0), count: self.frames.len() as u64 });
        }
        Ok(())
    }

    fn get_access(&mut self, view: u16, gfn: Gfn) -> Outcome {
        match self.frame(gfn) {
            None => refused(Errno::EINVAL),
            Some(frame) if frame.kind == P2mType::Invalid => refused(Errno::ESRCH),
            Some(_) => Outcome::Value(self.access_in(view, gfn) as u64),
        }
    }

    fn has_view(&self, view: u16) -> bool {
        view == 0 || self.views.as_ref().is_some_and(|views| views.get(view as usize).is_some_and(Option::is_some))
    }

    fn check_rights(&mut self, v: usize, access: &Access) -> Done {
        let listener = self.live(Ring::Access);
        let policy = self.channels[Ring::Access.index()].policy;
        let view = self.vcpus[v].view;
        let kind = self.access_in(view, access.gfn);
        if kind == AccessType::Rx2rw && access.rights.contains(Rights::W) {
            self.set_access_in(view, access.gfn, AccessType::Rw);
            if Rights::RW.contains(access.rights) {
                return Ok(());
            }
        }
        if !listener && policy == NoConsumer::Relax {
            self.set_access_in(view, access.gfn, AccessType::Rwx);
            return Ok(());
        }
        self.claim(v, Ring::Access)?;
        let Access { gfn, offset, gla, rights, .. } = *access;
        let event = Event::Violation { gfn, offset, gla, rights, in_gpt: false };
        let request = Request { flags: Flags::NONE, vcpu: VcpuId(v as u32), event, view: mem_event::ViewId::HOST };
        if kind == AccessType::N2rwx {
            self.put(Ring::Access, request);
            self.set_access_in(view, access.gfn, AccessType::Rwx);
            return Ok(());
        }
        self.vcpus[v].stopped = (access.rip, gfn, rights);
        self.put_and_pause(v, Ring::Access, request)
    }

    fn take_frame(&mut self, v: usize, gfn: Gfn) -> Done {
        if self.vcpus[v].frame {
            self.vcpus[v].frame = false;
            return Ok(());
        }
        if self.spare() > 0 {
            return Ok(());
        }
        if self.live(Ring::Sharing) {
            self.claim(v, Ring::Sharing)?;
            let request = self.sharing(gfn);
            return self.put_and_pause(v, Ring::Sharing, request);
        }
        if self.channels[Ring::Sharing.index()].policy == NoConsumer::Crash {
            return Err(self.crash());
        }
        self.vcpus[v].wait = Wait::Frame;
        Err(Outcome::Wait(WaitReason::Frame))
    }

    fn bear(&mut self, gfn: Gfn, default: AccessType) {
        if let Some(frame) = self.frame(gfn) {
            frame.kind = P2mType::RamRw;
            frame.held = true;
            if !frame.chosen {
                frame.access = default;
            }
        }
        self.effects.push(Effect::Zero(gfn));
    }

    fn company(&self, group: u64) -> usize {
        self.frames.iter().filter(|frame| frame.group == group).count()
    }

    fn part(&mut self, gfn: Gfn) {
        let Some(frame) = self.frame(gfn) else { return };
        let group = std::mem::take(&mut frame.group);
        frame.kind = P2mType::RamRw;
        let copy = self.company(group) > 0;
        self.effects.push(Effect::Unshare { gfn, copy });
    }

    fn p2mt(&self, gfn: Gfn) -> P2mType {
        self.frames.get(gfn.0 as usize).map_or(P2mType::MmioDm, |frame| frame.kind)
    }

    fn sharing(&self, gfn: Gfn) -> Request {
        Request {
            flags: Flags::NONE,
            vcpu: VcpuId(0),
            event: Event::Sharing { gfn, p2mt: self.p2mt(gfn) },
            view: mem_event::ViewId::HOST,
        }
    }

    fn ask(&mut self, gfn: Gfn) -> Request {
        let p2mt = self.p2mt(gfn);
        let flags = if p2mt == P2mType::RamPagingOut { Flags::EVICT_FAIL } else { Flags::NONE };
        let request =
            Request { flags, vcpu: VcpuId(0), event: Event::Paging { gfn, p2mt }, view: mem_event::ViewId::HOST };
        if let Some(frame) = self.frame(gfn) {
            frame.kind = P2mType::RamPagingIn;
        }
        request
    }

    fn foreign(&mut self, access: &Access) -> Outcome {
        if self.dead {
            return Outcome::Crashed;
        }
        let there = self.bring(access.gfn, Rights::NONE);
        let allowed = there.and_then(|()| self.check_rights_foreign(access));
        let done = allowed.and_then(|()| self.bring(access.gfn, access.rights));
        done.err().unwrap_or(Outcome::Proceed)
    }

    fn check_rights_foreign(&mut self, access: &Access) -> Done {
        let listener = self.channels[Ring::Access.index()].clone();
        let Some(frame) = self.frame(access.gfn) else { return Ok(()) };
        let out = listener.due.iter().any(|it| it.frame() == Some(access.gfn) && it.flags.contains(Flags::FOREIGN));
        if out && matches!(listener.standing, Standing::Live | Standing::Draining) {
            return Err(Outcome::Retry(Errno::EAGAIN));
        }
        if frame.access == AccessType::Rx2rw && access.rights.contains(Rights::W) {
            frame.access = AccessType::Rw;
        }
        let forbids = frame.access;
        if forbids.rights().contains(access.rights) {
            return Ok(());
        }
        if listener.standing != Standing::Live {
            return match listener.policy {
                NoConsumer::Relax => {
                    frame.access = AccessType::Rwx;
                    Ok(())
                }
                NoConsumer::Crash if listener.standing != Standing::Draining => Err(self.crash()),
                NoConsumer::Crash | NoConsumer::Wait => Err(Outcome::Retry(Errno::ENOSYS)),
            };
        }
        if !self.claim_foreign(Ring::Access) {
            return Err(Outcome::Retry(Errno::EBUSY));
        }
        let (gfn, offset, gla, rights) = (access.gfn, access.offset, access.gla, access.rights);
        let event = Event::Violation { gfn, offset, gla, rights, in_gpt: false };
        self.put(
            Ring::Access,
            Request { flags: Flags::FOREIGN, vcpu: VcpuId(0), event, view: mem_event::ViewId::HOST },
        );
        match self.frame(gfn) {
            Some(frame) if forbids == AccessType::N2rwx => {
                frame.access = AccessType::Rwx;
                Ok(())
            }
            _ => Err(Outcome::Retry(Errno::EAGAIN)),
        }
    }

    fn bring(&mut self, gfn: Gfn, rights: Rights) -> Done {
        let default = self.default;
        let Some(frame) = self.frame(gfn).copied() else { return Ok(()) };
        match frame.kind {
            kind if kind.is_paging() => {
                let asked = self.channels[0].due.iter().any(|request| request.frame() == Some(gfn));
                if kind == P2mType::RamPagingIn && asked {
                    return Err(Outcome::Retry(Errno::ENOENT));
                }
                if !self.live(Ring::Paging) {
                    return Err(Outcome::Retry(Errno::ENOSYS));
                }
                if !self.claim_foreign(Ring::Paging) {
                    return Err(Outcome::Retry(Errno::EBUSY));
                }
                let request = self.ask(gfn);
                self.put(Ring::Paging, Request { flags: request.flags.union(Flags::FOREIGN), ..request });
                return Err(Outcome::Retry(Errno::ENOENT));
            }
            P2mType::PopulateOnDemand | P2mType::Invalid => {
                self.take_frame_foreign(gfn)?;
                self.bear(gfn, default);
            }
            P2mType::RamShared if rights.contains(Rights::W) => {
                if self.company(frame.group) > 1 {
                    self.take_frame_foreign(gfn)?;
                }
                self.part(gfn);
            }
            _ => {}
        }
        Ok(())
    }

    fn take_frame_foreign(&mut self, gfn: Gfn) -> Done {
        if self.spare() > 0 {
            return Ok(());
        }
        if self.claim_foreign(Ring::Sharing) {
            let request = self.sharing(gfn);
            self.put(Ring::Sharing, Request { flags: Flags::FOREIGN, ..request });
        }
        Err(Outcome::Retry(Errno::ENOMEM))
    }

    fn report(&mut self, v: usize, event: &CpuEvent) -> Done {
        self.vcpus[v].alone.take_if(|(rip, ..)| *rip != event.rip.0);
        if self.vcpus[v].answered.take() == Some(*event) {
            return Ok(());
        }
        let mut setting = self.modes.get(&(event.kind as u8)).copied().unwrap_or_default();
        if event.kind == CpuEventKind::Msr
            && let Some(single) = self.msrs.get(&event.number).filter(|(mode, _)| *mode != MonitorMode::Disabled)
        {
            setting = *single;
        }
        let (mode, only) = setting;
        let mask = self.masks.get(&(event.kind as u8)).copied().unwrap_or_default();
        let stepping = event.kind != CpuEventKind::SingleStep || self.vcpus[v].stepping;
        let control_register = is_write(event.kind) && event.kind != CpuEventKind::Msr;
        if mode == MonitorMode::Disabled || !stepping {
            return Ok(());
        }
        if (control_register || only) && event.value & !mask == event.old & !mask {
            return Ok(());
        }
        let relaxed = self.channels[Ring::Access.index()].policy == NoConsumer::Relax;
        let is_delivery = vector_of(event.kind).is_some() || event.kind == CpuEventKind::Interrupt;
        if !self.live(Ring::Access) && (relaxed || is_delivery) {
            return Ok(());
        }
        self.claim(v, Ring::Access)?;
        let cpu = told(event);
        let request = Request {
            flags: Flags::NONE,
            vcpu: VcpuId(v as u32),
            event: Event::Cpu(cpu),
            view: mem_event::ViewId::HOST,
        };
        if mode == MonitorMode::Async {
            self.put(Ring::Access, request);
            return Ok(());
        }
        self.vcpus[v].reported = Some(*event);
        self.put_and_pause(v, Ring::Access, request)
    }

    /// Of the layouts that are drawn none hangs on it: the breakpoint is the guest's anyway.
    fn inject(&mut self, vcpu: VcpuId, vector: u32, trap: impl Fn(u8) -> Trap) -> Done {
        let it = self.vcpus.get(vcpu.0 as usize).ok_or(refused(Errno::ESRCH))?;
        let number = u8::try_from(vector).map_err(|_| refused(Errno::EINVAL))?;
        if it.reported.is_none_or(|event| vector_of(event.kind) != Some(number)) {
            self.effects.push(Effect::Inject { vcpu, trap: trap(number) });
        }
        Ok(())
    }

    fn balloon(&mut self, v: usize, gfn: Gfn) -> Done {
        self.droppable(gfn)?;
        let paging = self.frame(gfn).is_some_and(|frame| frame.kind.is_paging());
        let tells = paging && self.channels[0].standing != Standing::Absent;
        if tells {
            self.claim(v, Ring::Paging)?;
        }
        self.remove(gfn, tells, (VcpuId(v as u32), Flags::NONE));
        Ok(())
    }

    fn drop_page(&mut self, gfn: Gfn) -> Done {
        if let Some(pins) = self.beyond.get(&gfn.0) {
            return self.drop_beyond(gfn, *pins);
        }
        self.droppable(gfn)?;
        let paging = self.frame(gfn).is_some_and(|frame| frame.kind.is_paging());
        let tells = paging && self.channels[0].standing != Standing::Absent;
        if tells && !self.claim_foreign(Ring::Paging) {
            return Err(refused(Errno::EBUSY));
        }
        self.remove(gfn, tells, (VcpuId(0), Flags::FOREIGN));
        Ok(())
    }

    fn droppable(&mut self, gfn: Gfn) -> Done {
        match self.frame(gfn) {
            None => Err(refused(Errno::ENOENT)),
            Some(frame) if frame.kind == P2mType::Invalid => Err(refused(Errno::ENOENT)),
            Some(frame) if frame.stays() => Err(refused(Errno::EBUSY)),
            Some(_) => Ok(()),
        }
    }

    fn remove(&mut self, gfn: Gfn, tells: bool, by: (VcpuId, Flags)) {
        let Some(frame) = self.frame(gfn) else { return };
        let was = *frame;
        *frame = Frame { kind: P2mType::Invalid, held: false, chosen: false, group: 0, ..was };
        if matches!(was.kind, P2mType::RamRw | P2mType::RamShared) {
            self.effects.push(Effect::Unmap(gfn));
        }
        if was.held {
            self.effects.push(Effect::Punch(gfn));
        }
        if tells {
            let evict = if was.kind == P2mType::RamPagingOut { Flags::EVICT_FAIL } else { Flags::NONE };
            let (vcpu, flags) = (by.0, by.1.union(Flags::DROP_PAGE).union(evict));
            self.put(
                Ring::Paging,
                Request {
                    flags,
                    vcpu,
                    event: Event::Paging { gfn, p2mt: P2mType::RamRw },
                    view: mem_event::ViewId::HOST,
                },
            );
        }
    }

    fn kick(&mut self, ring: Ring, posted: &[Response], broken: bool) -> Outcome {
        self.take(ring, posted, broken);
        if self.channel(ring).standing == Standing::Draining && self.channel(ring).due.is_empty() {
            self.end(ring);
        }
        Outcome::Proceed
    }

    fn take(&mut self, ring: Ring, posted: &[Response], broken: bool) {
        if !matches!(self.channel(ring).standing, Standing::Live | Standing::Draining) {
            return;
        }
        if broken {
            self.effects.push(Effect::Broken(ring, String::new()));
            if self.live(ring) {
                self.bereave(ring, Standing::Broken);
            } else {
                self.end(ring);
            }
            return;
        }
        for response in posted {
            let answered = self.settle(ring, response);
            let plain = Response { about: About::Other(response.subject()), ..*response };
            self.effects.push(Effect::Answered { ring, slot: 0, response: plain });
            self.respond(ring, response, answered.is_some_and(|it| it.flags.contains(Flags::FOREIGN)));
        }
    }

    fn settle(&mut self, ring: Ring, response: &Response) -> Option<Request> {
        let due = &mut self.channel(ring).due;
        let pauses = |flags: Flags| flags.contains(Flags::VCPU_PAUSED);
        let same = |it: &Request| it.event.subject() == response.subject() && it.vcpu.0 == response.vcpu;
        let rules: [&dyn Fn(&Request) -> bool; 3] =
            [&|it| same(it) && pauses(it.flags) == pauses(response.flags), &same, &|it| {
                it.event.subject() == response.subject() && it.flags.contains(Flags::FOREIGN)
            }];
        for rule in rules {
            if let Some(at) = due.iter().position(rule) {
                return Some(due.remove(at));
            }
        }
        let spent = due.iter().position(|it| !pauses(it.flags)).unwrap_or(0);
        due.remove(spent);
        None
    }

    fn respond(&mut self, ring: Ring, response: &Response, foreign: bool) {
        let v = response.vcpu as usize;
        let exists = v < self.vcpus.len();
        if response.flags.contains(Flags::DUMMY) || !exists && !foreign {
            return;
        }
        if ring == Ring::Paging && !response.flags.contains(Flags::DROP_PAGE) {
            let gfn = Gfn(response.subject());
            if let Some(frame) = self.frame(gfn).filter(|it| it.kind == P2mType::RamPagingIn && it.held) {
                frame.kind = P2mType::RamRw;
                self.effects.push(Effect::Map(gfn));
            }
        }
        if exists && !foreign && response.flags.contains(Flags::VCPU_PAUSED) {
            let (_, gfn, rights) = self.vcpus[v].stopped;
            let view = self.vcpus[v].view;
            let violates = self.frame(gfn).is_some() && !self.access_in(view, gfn).rights().contains(rights);
            let it = &mut self.vcpus[v];
            if it.wait == Wait::Answer(ring) {
                if ring == Ring::Access && it.reported.is_none() && response.flags.contains(Flags::EMULATE) {
                    it.alone = violates.then_some(it.stopped);
                }
                it.wait = Wait::Runs;
                it.answered = it.reported.take();
                self.effects.push(Effect::Wake(VcpuId(response.vcpu)));
            }
        }
    }

    fn end(&mut self, ring: Ring) {
        let channel = self.channel(ring);
        channel.standing = Standing::Absent;
        channel.slots = 0;
        channel.due.clear();
        self.revoke(ring);
        if ring == Ring::Access {
            self.vcpus.iter_mut().for_each(|it| it.stepping = false);
        }
        if ring == Ring::Paging {
            for (gfn, frame) in (0..).zip(&mut self.frames) {
                let nominated = matches!(frame.kind, P2mType::RamPagingOut | P2mType::RamPagingIn);
                if nominated && frame.held {
                    frame.kind = P2mType::RamRw;
                    self.effects.push(Effect::Map(Gfn(gfn)));
                } else if nominated {
                    frame.kind = P2mType::RamPaged;
                }
            }
        }
        self.wake_where(|it| it.wait == Wait::Answer(ring) || it.wait == Wait::Queue(ring));
        self.effects.push(Effect::Closed(ring));
    }

    fn revoke(&mut self, ring: Ring) {
        for it in &mut self.vcpus {
            if it.slot == Some(ring) {
                it.slot = None;
            }
        }
    }

    fn bereave(&mut self, ring: Ring, standing: Standing) {
        self.channel(ring).standing = standing;
        self.revoke(ring);
        self.follow_policy(ring);
        if ring == Ring::Sharing {
            self.wake_where(|it| it.wait == Wait::Queue(ring));
        }
    }

    fn follow_policy(&mut self, ring: Ring) {
        if matches!(self.channel(ring).standing, Standing::Live | Standing::Draining) {
            return;
        }
        let stopped = |it: &Vcpu| it.wait == Wait::Answer(ring) || it.wait == Wait::Queue(ring);
        match self.channels[ring.index()].policy {
            NoConsumer::Crash if self.vcpus.iter().any(stopped) => {
                let _ = self.crash();
            }
            NoConsumer::Relax => {
                self.channel(ring).due.retain(|request| !request.flags.contains(Flags::VCPU_PAUSED));
                self.wake_where(stopped);
            }
            _ => {}
        }
    }

    fn crash(&mut self) -> Outcome {
        if !self.dead {
            self.dead = true;
            self.effects.push(Effect::Crash(String::new()));
            self.wake_where(|_| true);
            for it in &mut self.vcpus {
                it.slot = None;
                it.frame = false;
            }
        }
        Outcome::Crashed
    }

    fn lost(&mut self, ring: Ring, posted: &[Response], broken: bool) -> Outcome {
        self.take(ring, posted, broken);
        match self.channel(ring).standing {
            Standing::Absent | Standing::Lost => {}
            Standing::Draining => self.end(ring),
            Standing::Live | Standing::Broken => self.bereave(ring, Standing::Lost),
        }
        Outcome::Proceed
    }

    fn abandon(&mut self, vcpu: VcpuId) -> Outcome {
        let Some(it) = self.vcpus.get_mut(vcpu.0 as usize) else { return refused(Errno::ESRCH) };
        if matches!(it.wait, Wait::Queue(_) | Wait::Frame) {
            it.wait = Wait::Runs;
        }
        it.slot = None;
        it.frame = false;
        it.alone = None;
        Outcome::Proceed
    }

    /// Nobody waits for anything, and what was asked for those that did is a foreigner's.
    fn reset(&mut self) -> Outcome {
        for (vcpu, it) in (0..).zip(&mut self.vcpus) {
            if let Wait::Answer(ring) = it.wait {
                let due = self.channels[ring.index()].due.iter_mut();
                due.filter(|request| request.vcpu.0 == vcpu && request.flags.contains(Flags::VCPU_PAUSED))
                    .for_each(|request| request.flags = request.flags.union(Flags::FOREIGN));
            }
            if it.wait != Wait::Runs {
                self.effects.push(Effect::Wake(VcpuId(vcpu)));
            }
            *it = Vcpu { stepping: it.stepping, view: it.view, ..Vcpu::new() };
        }
        Outcome::Proceed
    }

    fn emulated(&mut self, vcpu: VcpuId) -> Outcome {
        let Some(it) = self.vcpus.get_mut(vcpu.0 as usize) else { return refused(Errno::ESRCH) };
        it.alone = None;
        Outcome::Proceed
    }

    fn unpopulated(&mut self, first: u64, count: u64) -> Outcome {
        let Some(end) = first.checked_add(count).filter(|end| *end <= self.frames.len() as u64) else {
            return refused(Errno::EINVAL);
        };
        for frame in &mut self.frames[first as usize..end as usize] {
            if frame.kind == P2mType::RamRw && !frame.stays() {
                frame.kind = P2mType::PopulateOnDemand;
                frame.held = false;
            }
        }
        Outcome::Proceed
    }

    fn fill_failed(&mut self, gfn: Gfn) -> Outcome {
        let Some(frame) = self.frame(gfn).filter(|frame| frame.held && !frame.stays()) else {
            return refused(Errno::ENOENT);
        };
        match frame.kind {
            P2mType::RamPagingIn => {}
            P2mType::RamRw => {
                frame.kind = P2mType::RamPaged;
                frame.held = false;
                self.effects.push(Effect::Unmap(gfn));
                self.effects.push(Effect::Punch(gfn));
                return Outcome::Proceed;
            }
            _ => return refused(Errno::ENOENT),
        }
        frame.held = false;
        self.effects.push(Effect::Punch(gfn));
        Outcome::Proceed
    }

    fn monitor(&mut self, control: &Control) -> Done {
        match *control {
            Control::Monitor { kind, on_change_only: true, .. } if !is_write(kind) => Err(refused(Errno::EINVAL)),
            Control::Monitor { kind, mode, on_change_only } => {
                let setting = (mode, on_change_only && mode != MonitorMode::Disabled);
                let before = self.modes.insert(kind as u8, setting).unwrap_or_default();
                let ends_all = kind == CpuEventKind::Msr && mode == MonitorMode::Disabled;
                let had_single = ends_all && self.msrs.values().any(|(mode, _)| *mode != MonitorMode::Disabled);
                if ends_all {
                    self.msrs.clear();
                }
                if before == setting && !had_single { Err(refused(Errno::EEXIST)) } else { Ok(()) }
            }
            Control::MonitorMask { kind, .. } if !is_write(kind) || kind == CpuEventKind::Msr => {
                Err(refused(Errno::EINVAL))
            }
            Control::MonitorMask { kind, ignored } => {
                self.masks.insert(kind as u8, ignored);
                Ok(())
            }
            Control::MonitorMsr { msr, mode, on_change_only } => {
                let setting = (mode, on_change_only && mode != MonitorMode::Disabled);
                let before = self.msrs.insert(msr, setting).unwrap_or_default();
                if before == setting { Err(refused(Errno::EEXIST)) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn control(&mut self, control: &Control, posted: &[Response], broken: bool) -> Outcome {
        let done = match *control {
            Control::Enable { ring, slots, .. } => self.enable(ring, slots as usize),
            Control::Disable { ring, drain } => self.disable(ring, drain, posted, broken),
            Control::Resume { ring } if self.channel(ring).standing == Standing::Absent => Err(refused(Errno::ENODEV)),
            Control::Resume { ring } => Err(self.kick(ring, posted, broken)),
            Control::SetNoConsumer { ring, policy } => self.set_policy(ring, policy),
            Control::SetAccessRequired { required } => self.require_listener(required),
            Control::SetFlow { .. } => panic!("this reference is of one flow control, the engine's own"),
            Control::SetAccess { first, count, access } => self.set_access(first.0, count, access),
            Control::GetAccess { gfn } => Err(self.get_access(0, gfn)),
            Control::SetViews { .. }
            | Control::CreateView { .. }
            | Control::DestroyView { .. }
            | Control::SetViewAccess { .. }
            | Control::GetViewAccess { .. }
            | Control::SetViewDefault { .. }
            | Control::SwitchView { .. }
            | Control::SwitchVcpuView { .. }
            | Control::GetVcpuView { .. }
            | Control::ChangeGfn { .. } => self.views(control),
            Control::Populate { gfn } => self.populate(gfn),
            Control::SetDefaultAccess { access } => {
                self.default = access;
                Ok(())
            }
            Control::Nominate { gfn } => self.nominate(gfn),
            Control::Evict { gfn } => self.evict(gfn),
            Control::Prep { gfn, buffer } => self.prep(gfn, buffer),
            Control::Drop { gfn } => self.drop_page(gfn),
            Control::SetBudget { frames } => {
                self.budget = frames;
                Ok(())
            }
            Control::Monitor { .. } | Control::MonitorMask { .. } | Control::MonitorMsr { .. } => self.monitor(control),
            Control::SingleStep { vcpu, on } => match self.vcpus.get_mut(vcpu.0 as usize) {
                Some(it) => {
                    it.stepping = on;
                    Ok(())
                }
                None => Err(refused(Errno::ESRCH)),
            },
            Control::Inject { vcpu, vector, kind, error, cr2 } => {
                let error = (error != u32::MAX).then_some(error);
                self.inject(vcpu, vector, |vector| Trap { vector, kind, error, cr2 })
            }
            Control::Pin { gfn } => self.pin(gfn),
            Control::Unpin { gfn } => self.unpin(gfn),
            Control::NominateShare { gfn } => Err(self.nominate_share(gfn)),
            Control::Share { source, source_handle, client, client_handle } => {
                self.share((source, source_handle), (client, client_handle))
            }
        };
        done.err().unwrap_or(Outcome::Proceed)
    }

    fn require_listener(&mut self, required: bool) -> Done {
        let set = self.channel(Ring::Access).policy;
        let otherwise = if set == NoConsumer::Relax { NoConsumer::Wait } else { set };
        self.set_policy(Ring::Access, if required { otherwise } else { NoConsumer::Relax })
    }

    fn enable(&mut self, ring: Ring, slots: usize) -> Done {
        let channel = self.channel(ring);
        if !matches!(channel.standing, Standing::Absent | Standing::Lost) {
            return Err(refused(Errno::EBUSY));
        }
        let slots = if slots == 0 { 64 } else { slots };
        if !slots.is_power_of_two() || slots > 64 || slots < channel.due.len() {
            return Err(refused(Errno::EINVAL));
        }
        channel.slots = slots;
        channel.standing = Standing::Live;
        let due = std::mem::take(&mut channel.due);
        for request in &due {
            self.effects.push(Effect::Requested { ring, slot: 0, request: *request });
        }
        if !due.is_empty() {
            self.effects.push(Effect::Notify(ring));
        }
        let paused: Vec<u32> =
            due.iter().filter(|it| it.flags.contains(Flags::VCPU_PAUSED)).map(|it| it.vcpu.0).collect();
        self.channel(ring).due = due;
        for (vcpu, it) in (0..).zip(&mut self.vcpus) {
            if it.wait == Wait::Answer(ring) && !paused.contains(&vcpu) {
                it.wait = Wait::Runs;
                it.reported = None;
                self.effects.push(Effect::Wake(VcpuId(vcpu)));
            }
        }
        if ring == Ring::Sharing {
            self.wake_where(|it| it.wait == Wait::Frame);
        }
        Ok(())
    }

    fn disable(&mut self, ring: Ring, drain: bool, posted: &[Response], broken: bool) -> Done {
        let standing = self.channel(ring).standing;
        let waiters = self.vcpus.iter().any(|it| it.wait == Wait::Queue(ring));
        match standing {
            Standing::Absent => return Err(refused(Errno::EINVAL)),
            Standing::Live | Standing::Draining if !drain && waiters => return Err(refused(Errno::EBUSY)),
            _ => {}
        }
        if ring == Ring::Access {
            self.modes.clear();
            self.masks.clear();
            self.msrs.clear();
        }
        if drain && self.live(ring) {
            self.channel(ring).standing = Standing::Draining;
            self.revoke(ring);
        }
        self.take(ring, posted, broken);
        let channel = self.channel(ring);
        if channel.standing == Standing::Absent {
            return Ok(());
        }
        if !drain || channel.standing != Standing::Draining || channel.due.is_empty() {
            self.end(ring);
        }
        Ok(())
    }

    fn set_policy(&mut self, ring: Ring, policy: NoConsumer) -> Done {
        if policy == NoConsumer::Relax && ring != Ring::Access {
            return Err(refused(Errno::EINVAL));
        }
        self.channel(ring).policy = policy;
        self.follow_policy(ring);
        if ring == Ring::Sharing {
            self.wake_where(|it| it.wait == Wait::Frame);
        }
        Ok(())
    }

    fn passing(frame: &Frame) -> Rights {
        match frame.kind {
            P2mType::RamRw => frame.access.rights(),
            P2mType::RamShared => frame.access.rights().without(Rights::W),
            _ => Rights::NONE,
        }
    }

    fn set_access(&mut self, first: u64, count: u64, access: AccessType) -> Done {
        let end = first.checked_add(count).filter(|end| count > 0 && *end <= self.frames.len() as u64);
        let Some(end) = end else { return Err(refused(Errno::EINVAL)) };
        let mut less = false;
        for frame in &mut self.frames[first as usize..end as usize] {
            let before = Reference::passing(frame);
            frame.access = access;
            frame.chosen = true;
            less |= !before.without(Reference::passing(frame)).is_empty();
        }
        if less {
            self.effects.push(Effect::Tighten { first: Gfn(first), count });
        }
        Ok(())
    }

    fn pager(&mut self, evicting: bool) -> Done {
        match self.channel(Ring::Paging).standing {
            Standing::Absent => Err(refused(Errno::ENODEV)),
            Standing::Draining if evicting => Err(refused(Errno::EBUSY)),
            _ => Ok(()),
        }
    }

    fn nominate(&mut self, gfn: Gfn) -> Done {
        self.pager(true)?;
        match self.frame(gfn) {
            Some(frame) if frame.kind == P2mType::RamRw && !frame.stays() => frame.kind = P2mType::RamPagingOut,
            _ => return Err(refused(Errno::EBUSY)),
        }
        self.effects.push(Effect::Unmap(gfn));
        Ok(())
    }

    fn evict(&mut self, gfn: Gfn) -> Done {
        self.pager(true)?;
        match self.frame(gfn) {
            Some(frame) if frame.kind == P2mType::RamPagingOut && !frame.stays() => {
                frame.kind = P2mType::RamPaged;
                frame.held = false;
            }
            _ => return Err(refused(Errno::EBUSY)),
        }
        self.effects.push(Effect::Punch(gfn));
        Ok(())
    }

    fn prep(&mut self, gfn: Gfn, buffer: bool) -> Done {
        self.pager(false)?;
        let frame = self.frame(gfn).copied();
        let coming = frame.filter(|frame| matches!(frame.kind, P2mType::RamPagingIn | P2mType::RamPaged));
        let Some(frame) = coming else { return Err(refused(Errno::ENOENT)) };
        if frame.held {
            return Ok(());
        }
        if !buffer {
            return Err(refused(Errno::EINVAL));
        }
        if self.take_frame_foreign(gfn).is_err() {
            return Err(refused(Errno::ENOMEM));
        }
        self.effects.push(Effect::Fill(gfn));
        let asked = frame.kind == P2mType::RamPagingIn;
        if !asked {
            self.effects.push(Effect::Map(gfn));
        }
        if let Some(frame) = self.frame(gfn) {
            frame.held = true;
            frame.kind = if asked { P2mType::RamPagingIn } else { P2mType::RamRw };
        }
        Ok(())
    }

    fn unpin(&mut self, gfn: Gfn) -> Done {
        let ram = self.frames.get_mut(gfn.0 as usize).map(|frame| &mut frame.pins);
        match self.beyond.get_mut(&gfn.0).or(ram) {
            Some(pins) if *pins > 0 => {
                *pins -= 1;
                Ok(())
            }
            _ => Err(refused(Errno::EINVAL)),
        }
    }

    fn pin(&mut self, gfn: Gfn) -> Done {
        if self.dead {
            return Err(Outcome::Crashed);
        }
        if let Some(pins) = self.beyond.get_mut(&gfn.0) {
            *pins += 1;
            return Ok(());
        }
        let frame = self.frame(gfn).map(|frame| (frame.kind, frame.held));
        if matches!(frame, None | Some((P2mType::Invalid, _))) {
            return Err(refused(Errno::EINVAL));
        }
        if !frame.is_some_and(|(kind, held)| kind.is_paging() && held) {
            self.bring(gfn, Rights::R)?;
        }
        match self.frame(gfn) {
            Some(frame) if frame.pins < u8::MAX => frame.pins += 1,
            _ => return Err(refused(Errno::EBUSY)),
        }
        Ok(())
    }

    fn nominate_share(&mut self, gfn: Gfn) -> Outcome {
        let next = self.groups + 1;
        let Some(frame) = self.frame(gfn) else { return refused(Errno::EINVAL) };
        match frame.kind {
            P2mType::RamShared => Outcome::Value(frame.group),
            P2mType::RamRw if frame.stays() => refused(Errno::EBUSY),
            P2mType::RamRw => {
                frame.kind = P2mType::RamShared;
                frame.group = next;
                self.groups = next;
                self.effects.push(Effect::Tighten { first: gfn, count: 1 });
                Outcome::Value(next)
            }
            _ => refused(Errno::EINVAL),
        }
    }

    fn share(&mut self, source: (Gfn, u64), client: (Gfn, u64)) -> Done {
        for (gfn, group) in [source, client] {
            if group == 0 || self.frame(gfn).is_none_or(|frame| frame.group != group) {
                return Err(refused(Errno::EINVAL));
            }
        }
        if source.1 == client.1 {
            return Err(refused(Errno::EINVAL));
        }
        if self.company(client.1) > 1 || self.frame(client.0).is_some_and(|frame| frame.stays()) {
            return Err(refused(Errno::EBUSY));
        }
        if let Some(frame) = self.frame(client.0) {
            frame.group = source.1;
        }
        self.effects.push(Effect::Share { source: source.0, client: client.0 });
        Ok(())
    }
}

/// Whether it is a write to a register.
fn is_write(kind: CpuEventKind) -> bool {
    let (cr0, cr3, cr4) = (CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4);
    [cr0, cr3, cr4, CpuEventKind::Xcr0, CpuEventKind::Msr].contains(&kind)
}

/// The exception that it tells of.
fn vector_of(kind: CpuEventKind) -> Option<u8> {
    [(CpuEventKind::Debug, 1), (CpuEventKind::Int3, 3)]
        .iter()
        .find(|(other, _)| *other == kind)
        .map(|(_, vector)| *vector)
}

/// What the listener is told of the event.
fn told(event: &CpuEvent) -> Cpu {
    let CpuEvent { rip, gfn, .. } = *event;
    match event.kind {
        CpuEventKind::Cr0 => Cpu::Cr0 { new: event.value, old: event.old },
        CpuEventKind::Cr3 => Cpu::Cr3 { new: event.value, old: event.old },
        CpuEventKind::Cr4 => Cpu::Cr4 { new: event.value, old: event.old },
        CpuEventKind::Xcr0 => Cpu::Xcr0 { new: event.value, old: event.old },
        CpuEventKind::Msr => Cpu::Msr { msr: event.number, new: event.value, old: event.old },
        CpuEventKind::Int3 => Cpu::Int3 { rip, gfn },
        CpuEventKind::SingleStep => Cpu::SingleStep { rip, gfn },
        CpuEventKind::Debug => Cpu::Debug { rip, gfn, causes: event.value as u16, length: event.number as u8 },
        CpuEventKind::Interrupt => Cpu::Interrupt {
            vector: event.number as u8,
            kind: TrapKind::from_number((event.number >> 8) as u8).unwrap_or(TrapKind::Exception),
            error: event.old as u32,
            cr2: event.value,
        },
        CpuEventKind::Cpuid => {
            Cpu::Cpuid { leaf: event.value as u32, subleaf: event.old as u32, length: event.number as u8 }
        }
        CpuEventKind::Descriptor => Cpu::Descriptor {
            table: DescriptorTable::ALL[(event.number % 4) as usize],
            is_write: event.number & 4 != 0,
            information: event.value as u32,
            qualification: event.old,
        },
        CpuEventKind::GuestRequest => Cpu::GuestRequest,
        CpuEventKind::Io => Cpu::Io {
            port: event.value as u16,
            bytes: event.number as u8,
            is_read: event.number & 0x100 != 0,
            is_string: event.number & 0x200 != 0,
        },
    }
}
