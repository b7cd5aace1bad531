//! Views: a domain's tables of rights, of which each vCPU goes by one (Xen's altp2m).
//!
//! A view says what those may do that go by it, of every frame: what was set of the frame there, else the view's default. Frames, their types and
//! what devices may do are the host's, view 0. What a vCPU asks is judged by its own view.
//!
//! All vCPUs share one memory. What its view allows a vCPU and another active view forbids, it does alone ([`Outcome::Alone`]), without an event:
//! the memory is closed to all, and opened for that instruction.
//!
//! In a view a frame may show another one's memory. Then every access of a vCPU that goes by that view is done alone, with the other content, and the
//! frame is closed to all; it is judged by the rights that the view has of it, before.

use crate::altp2m::{Settings, Views};
use crate::control::SET_ACCESS_SPAN;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::emulation::Emulation;
use crate::errno::Errno;
use crate::input::Access;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::rights::{AccessType, Rights};
use std::collections::{BTreeMap, BTreeSet};

impl Domain {
    /// The view that a vCPU goes by; the host's where the domain has none, and of a vCPU that does not exist.
    #[must_use]
    pub fn view_of(&self, vcpu: VcpuId) -> ViewId {
        self.vcpus.get(vcpu.0 as usize).map_or(ViewId::HOST, |it| it.view)
    }

    /// Whether the domain has views.
    #[must_use]
    pub fn has_views(&self) -> bool {
        self.p2m.views().is_some()
    }

    /// The access type of a frame in a view; `None` where there is no such view.
    #[must_use]
    pub fn access_type_in(&self, view: ViewId, gfn: Gfn) -> Option<AccessType> {
        self.p2m.views().filter(|views| views.has(view)).map(|_| self.p2m.get_in(view, gfn).access)
    }

    /// An access that its vCPU's view allows: where the memory is closed for another one's sake it is done alone.
    pub(crate) fn passes_by_view(&mut self, vcpu: VcpuId, access: &Access) -> Outcome {
        // Memory is never closed for fetches alone.
        let wanted = access.rights.without(Rights::X);
        let is_other = self.p2m.shown(self.view_of(vcpu), access.gfn).is_some();
        if !self.has_views() || !is_other && self.p2m.common(access.gfn).contains(wanted) {
            return Outcome::Proceed;
        }
        let emulation = &mut self.vcpu(vcpu).emulation;
        if emulation.as_ref().is_none_or(|it| it.by_view) {
            *emulation = Some(Box::new(Emulation::by_view((access.rip, access.gfn, access.rights))));
        }
        Outcome::Alone
    }

    /// `Control::SetViews`.
    pub(crate) fn set_views(&mut self, on: bool, effects: &mut Effects) -> Outcome {
        if on == self.has_views() {
            return Outcome::Proceed;
        }
        let before = self.common_of(None);
        let vcpus = self.config.vcpus;
        self.vcpus.iter_mut().for_each(|it| (it.view, it.after_step) = (ViewId::HOST, None));
        self.lets_go_of_shown(ViewId::all().collect());
        self.p2m.set_views(on.then(|| Views::new(vcpus)));
        for vcpu in 0..self.vcpus.len() {
            self.goes_by(vcpu, ViewId::HOST, effects);
        }
        self.tell_what_closed(before, effects);
        Outcome::Proceed
    }

    /// `Control::CreateView`.
    pub(crate) fn create_view(&mut self, access: AccessType) -> Outcome {
        let Some(views) = self.p2m.views() else { return without_views() };
        let Some(view) = views.free() else {
            return Outcome::Refused(Errno::EINVAL, "the domain has as many views as it can".to_owned());
        };
        self.p2m.put_view(view, Some(Settings { default: access, own: BTreeMap::new(), shown: BTreeMap::new() }));
        Outcome::Value(view.0.into())
    }

    /// `Control::DestroyView`.
    pub(crate) fn destroy_view(&mut self, view: ViewId) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        if view == ViewId::HOST {
            return Outcome::Refused(Errno::EINVAL, "view 0 is the host's".to_owned());
        }
        if self.vcpus.iter().any(|it| it.view == view) {
            return Outcome::Refused(Errno::EBUSY, format!("a vCPU goes by view {view}"));
        }
        self.lets_go_of_shown(vec![view]);
        self.p2m.put_view(view, None);
        Outcome::Proceed
    }

    /// `Control::SetViewAccess`, of at most [`SET_ACCESS_SPAN`] frames at a step.
    pub(crate) fn set_view_access(
        &mut self,
        view: ViewId,
        (first, count): (Gfn, u64),
        access: AccessType,
        effects: &mut Effects,
    ) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        if view == ViewId::HOST {
            return self.set_access(first, count, access, effects);
        }
        let end = match self.end_of(first, count) {
            Ok(end) => end,
            Err(refused) => return refused,
        };
        let stop = end.min(first.0 + SET_ACCESS_SPAN);
        let mut is_less = false;
        for gfn in (first.0..stop).map(Gfn) {
            if !self.p2m.get(gfn).is_ram() {
                continue;
            }
            let before = self.p2m.passing_in(view, gfn);
            self.p2m.set_access_in(view, gfn, access);
            is_less |= !self.p2m.passing_in(view, gfn).contains(before);
        }
        if is_less && self.is_active(view) {
            effects.list.push(Effect::Tighten { first, count: stop - first.0 });
        }
        if stop < end { Outcome::Value(stop - first.0) } else { Outcome::Proceed }
    }

    /// `Control::GetViewAccess`.
    pub(crate) fn get_view_access(&self, view: ViewId, gfn: Gfn) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        match self.get_access(gfn) {
            Outcome::Value(_) => Outcome::Value(self.p2m.get_in(view, gfn).access as u64),
            refused => refused,
        }
    }

    /// `Control::SetViewDefault`.
    pub(crate) fn set_view_default(&mut self, view: ViewId, access: AccessType, effects: &mut Effects) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        if view == ViewId::HOST {
            return self.set_default_access(access);
        }
        let before = self.p2m.views().and_then(|views| views.get(view)).map(|it| it.settings().default);
        self.p2m.set_default_in(view, access);
        if self.is_active(view) && before.is_some_and(|before| !access.rights().contains(before.rights())) {
            effects.list.push(Effect::Tighten { first: Gfn(0), count: self.p2m.end() });
        }
        Outcome::Proceed
    }

    /// `Control::SwitchView`.
    pub(crate) fn switch_view(&mut self, view: ViewId, effects: &mut Effects) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        self.switch((0..self.config.vcpus).map(VcpuId).collect(), view, effects);
        Outcome::Proceed
    }

    /// `Control::SwitchVcpuView`.
    pub(crate) fn switch_vcpu_view(&mut self, vcpu: VcpuId, view: ViewId, effects: &mut Effects) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        if vcpu.0 >= self.config.vcpus {
            return Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}"));
        }
        self.switch(vec![vcpu], view, effects);
        Outcome::Proceed
    }

    /// `Control::GetVcpuView`.
    pub(crate) fn get_vcpu_view(&self, vcpu: VcpuId) -> Outcome {
        match self.vcpus.get(vcpu.0 as usize) {
            None => Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}")),
            Some(_) if !self.has_views() => without_views(),
            Some(it) => Outcome::Value(it.view.0.into()),
        }
    }

    /// A view that a consumer or a step names, which may be none: then nothing happens (`p2m_altp2m_check`).
    pub(crate) fn switch_where_there_is(&mut self, vcpu: VcpuId, view: ViewId, effects: &mut Effects) {
        if self.existing_view(view).is_ok() {
            self.switch(vec![vcpu], view, effects);
        }
    }

    /// These vCPUs go by this view, which there is. The views that any vCPU goes by may be others then.
    fn switch(&mut self, vcpus: Vec<VcpuId>, view: ViewId, effects: &mut Effects) {
        let vcpus: Vec<VcpuId> = vcpus.into_iter().filter(|vcpu| self.view_of(*vcpu) != view).collect();
        let left: BTreeSet<ViewId> = vcpus.iter().map(|vcpu| self.view_of(*vcpu)).collect();
        let was_active = self.is_active(view);
        let frames = match left.first() {
            None => return,
            Some(one) if left.len() == 1 => {
                let is_host_watched = self.p2m.is_host_watched();
                self.p2m.views().and_then(|views| views.differing([*one, view], is_host_watched))
            }
            Some(_) => None,
        };
        // Where neither begins nor ends to be one that vCPUs go by, nothing else changes.
        let before = self.common_of(frames);
        for vcpu in vcpus {
            let from = self.view_of(vcpu);
            self.p2m.moves(vcpu.0 as usize, from, view);
            self.vcpu(vcpu).view = view;
            self.goes_by(vcpu.0 as usize, view, effects);
        }
        if was_active && left.iter().all(|left| self.is_active(*left)) {
            return;
        }
        before.iter().for_each(|(gfn, _)| self.p2m.republish_frame(*gfn));
        self.tell_what_closed(before, effects);
    }

    /// What another view allowed it is not allowed by that.
    fn goes_by(&mut self, vcpu: usize, view: ViewId, effects: &mut Effects) {
        self.p2m.activate(vcpu, view);
        if let Some(it) = self.vcpus.get_mut(vcpu) {
            it.emulation.take_if(|it| it.by_view);
        }
        if let Ok(vcpu) = u32::try_from(vcpu) {
            effects.list.push(Effect::Switched(VcpuId(vcpu)));
        }
        // Foreign callers are not concerned: they go by the host's.
    }

    /// What all vCPUs may do, of these frames or of all.
    fn common_of(&self, frames: Option<BTreeSet<u64>>) -> Vec<(Gfn, Rights)> {
        let look = |gfn: u64| (Gfn(gfn), self.p2m.common(Gfn(gfn)));
        match frames {
            Some(frames) => frames.into_iter().map(look).collect(),
            None => (0..self.p2m.end()).map(look).collect(),
        }
    }

    /// Of frames of which all could do this before, those that are less open now.
    fn tell_what_closed(&self, before: Vec<(Gfn, Rights)>, effects: &mut Effects) {
        let closed = |(gfn, before): &(Gfn, Rights)| !self.p2m.common(*gfn).contains(*before);
        let mut closed = before.into_iter().filter(closed).map(|(gfn, _)| gfn).peekable();
        while let Some(first) = closed.next() {
            let mut count = 1;
            while closed.next_if_eq(&Gfn(first.0 + count)).is_some() {
                count += 1;
            }
            effects.list.push(Effect::Tighten { first, count });
        }
    }

    /// Whether a vCPU goes by this view, of those that there are.
    pub(crate) fn is_active(&self, view: ViewId) -> bool {
        self.p2m.views().is_some_and(|views| views.is_active(view))
    }

    pub(crate) fn existing_view(&self, view: ViewId) -> Result<(), Outcome> {
        match self.p2m.views() {
            None => Err(without_views()),
            Some(views) if views.has(view) => Ok(()),
            Some(_) => Err(Outcome::Refused(Errno::EINVAL, format!("no view {view}"))),
        }
    }
}

fn without_views() -> Outcome {
    Outcome::Refused(Errno::EOPNOTSUPP, "the domain has no views: set-views gives it some".to_owned())
}
