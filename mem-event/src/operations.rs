//! Control operations: one table, and those that need no file of their own.

use crate::control::{Control, NoConsumer, Ring, SET_ACCESS_SPAN};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::errno::Errno;
use crate::life::Life;
use crate::number::Gfn;
use crate::p2m::{Entry, P2mType};
use crate::page::RingPage;
use crate::rights::{AccessType, Rights};
use crate::ring_state::RingPhase;
use crate::trap::Trap;

impl Domain {
    pub(crate) fn control(&mut self, control: &Control, page: Option<&RingPage>, effects: &mut Effects) -> Outcome {
        let outcome = match *control {
            Control::Enable { ring, layout, slots } => self.enable((ring, layout, slots), page, effects),
            Control::Disable { ring, drain } => self.disable(ring, drain, effects),
            Control::Resume { ring } => self.resume(ring, effects),
            Control::SetNoConsumer { ring, policy } => self.set_no_consumer(ring, policy, effects),
            Control::SetFlow { ring, flow } => self.set_flow(ring, flow),
            Control::SetAccess { first, count, access } => self.set_access(first, count, access, effects),
            Control::GetAccess { gfn } => self.get_access(gfn),
            Control::SetDefaultAccess { access } => self.set_default_access(access),
            Control::SetAccessRequired { required } => self.set_access_required(required, effects),
            Control::Nominate { gfn } => self.nominate(gfn, effects),
            Control::Evict { gfn } => self.evict(gfn, effects),
            Control::Prep { gfn, buffer } => self.prep(gfn, buffer, effects),
            Control::Drop { gfn } => self.drop_page(gfn, effects),
            Control::SetBudget { frames } => self.set_budget(frames, effects),
            Control::Monitor { kind, mode, on_change_only } => self.set_monitor(kind, mode, on_change_only),
            Control::MonitorMask { kind, ignored } => self.set_monitor_mask(kind, ignored),
            Control::MonitorMsr { msr, mode, on_change_only } => self.set_msr_monitor(msr, mode, on_change_only),
            Control::SingleStep { vcpu, on } => self.set_single_step(vcpu, on),
            Control::Inject { vcpu, vector, kind, error, cr2 } => {
                let error = Some(error).filter(|error| *error != u32::MAX);
                self.inject(vcpu, vector, |vector| Trap { vector, kind, error, cr2 }, effects)
            }
            Control::SetViews { on } => self.set_views(on, effects),
            Control::CreateView { access } => self.create_view(access),
            Control::DestroyView { view } => self.destroy_view(view),
            Control::SetViewAccess { view, first, count, access } => {
                self.set_view_access(view, (first, count), access, effects)
            }
            Control::GetViewAccess { view, gfn } => self.get_view_access(view, gfn),
            Control::SetViewDefault { view, access } => self.set_view_default(view, access, effects),
            Control::SwitchView { view } => self.switch_view(view, effects),
            Control::SwitchVcpuView { vcpu, view } => self.switch_vcpu_view(vcpu, view, effects),
            Control::GetVcpuView { vcpu } => self.get_vcpu_view(vcpu),
            Control::ChangeGfn { view, old, new } => self.change_gfn(view, old, new, effects),
            Control::Populate { gfn } => self.put_memory(gfn, effects),
            Control::Pin { gfn } => self.pin(gfn, effects),
            Control::Unpin { gfn } => self.unpin(gfn),
            Control::NominateShare { gfn } => self.nominate_share(gfn, effects),
            Control::Share { source, source_handle, client, client_handle } => {
                self.share((source, source_handle), (client, client_handle), effects)
            }
        };
        self.end_step(effects);
        outcome
    }

    fn resume(&mut self, ring: Ring, effects: &mut Effects) -> Outcome {
        if self.channel(ring).state.phase == RingPhase::Absent {
            return Outcome::Refused(Errno::ENODEV, format!("there is no {ring} ring"));
        }
        self.kick(ring, None, effects)
    }

    /// The number after the last of so many frames.
    pub(crate) fn end_of(&self, first: Gfn, count: u64) -> Result<u64, Outcome> {
        let last = self.p2m.end();
        let end = first.0.checked_add(count).filter(|end| count > 0 && *end <= last);
        end.ok_or_else(|| {
            Outcome::Refused(Errno::EINVAL, format!("{count} frames at {first}; frames end at {last:#x}"))
        })
    }

    pub(crate) fn set_access(&mut self, first: Gfn, count: u64, access: AccessType, effects: &mut Effects) -> Outcome {
        let end = match self.end_of(first, count) {
            Ok(end) => end,
            Err(refused) => return refused,
        };
        let stop = end.min(first.0 + SET_ACCESS_SPAN);
        let mut tightened = false;
        for gfn in (first.0..stop).map(Gfn) {
            let entry = self.p2m.get(gfn);
            if entry.is_ram() {
                let after = Entry { access, chosen: true, ..entry };
                tightened |= !after.passing().contains(entry.passing());
                self.p2m.set(gfn, after);
            }
        }
        // Foreign callers may have been told to come back when the rights are others.
        self.room = true;
        if tightened {
            effects.list.push(Effect::Tighten { first, count: stop - first.0 });
        }
        if stop < end { Outcome::Value(stop - first.0) } else { Outcome::Proceed }
    }

    pub(crate) fn get_access(&self, gfn: Gfn) -> Outcome {
        if gfn.0 >= self.p2m.end() {
            return Outcome::Refused(Errno::EINVAL, format!("frame {gfn} is above the last"));
        }
        match self.p2m_type(gfn) {
            P2mType::MmioDm | P2mType::Invalid => Outcome::Refused(Errno::ESRCH, format!("nothing is at frame {gfn}")),
            _ => Outcome::Value(self.access_type(gfn) as u64),
        }
    }

    pub(crate) fn set_default_access(&mut self, access: AccessType) -> Outcome {
        self.default_access = access;
        Outcome::Proceed
    }

    /// Xen's switch is one side of the access ring's setting: not required means relax; required means what was set else.
    fn set_access_required(&mut self, required: bool, effects: &mut Effects) -> Outcome {
        let policy = match (required, self.channel(Ring::Access).state.policy) {
            (false, _) => NoConsumer::Relax,
            (true, NoConsumer::Relax) => NoConsumer::Wait,
            (true, set) => set,
        };
        self.set_no_consumer(Ring::Access, policy, effects)
    }

    /// `Control::Pin`: a foreign caller maps a frame. What is paged out is asked for, and the caller retries (Xen's `mmu_update`);
    /// a frame that is nominated, or is asked for and has its memory, is there: its eviction will fail, or has failed. A pager maps what it has
    /// nominated, also where the guest was faster, and would wait for itself.
    fn pin(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.life != Life::Alive {
            return Outcome::Crashed;
        }
        if self.beyond.has(gfn) {
            return self.holds(gfn);
        }
        let kind = self.p2m_type(gfn);
        if kind == P2mType::MmioDm || kind == P2mType::Invalid {
            return Outcome::Refused(Errno::EINVAL, format!("frame {gfn} is {kind}"));
        }
        if !(kind.is_paging() && self.is_held(gfn)) {
            match self.bring(gfn, Rights::R, effects) {
                Outcome::Proceed => {}
                other => return other,
            }
        }
        self.holds(gfn)
    }

    /// A frame that is there stays, once more.
    pub(crate) fn holds(&mut self, gfn: Gfn) -> Outcome {
        let pins = self.pins(gfn);
        let Some(more) = pins.checked_add(1) else {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is mapped {pins} times"));
        };
        self.set_pins(gfn, more);
        Outcome::Proceed
    }

    pub(crate) fn unpin(&mut self, gfn: Gfn) -> Outcome {
        // What views show is not a foreign caller's to let go of.
        let pins = self.pins(gfn);
        let Some(less) = pins.checked_sub(1).filter(|less| *less > 0 || !self.p2m.is_shown(gfn)) else {
            return Outcome::Refused(Errno::EINVAL, format!("nobody has mapped frame {gfn}"));
        };
        self.set_pins(gfn, less);
        Outcome::Proceed
    }

    fn pins(&self, gfn: Gfn) -> u8 {
        self.beyond.pins(gfn).unwrap_or(self.p2m.get(gfn).pins)
    }

    pub(crate) fn set_pins(&mut self, gfn: Gfn, pins: u8) {
        if self.beyond.has(gfn) {
            return self.beyond.set_pins(gfn, pins);
        }
        let entry = self.p2m.get(gfn);
        if entry.is_ram() {
            self.p2m.set(gfn, Entry { pins, ..entry });
        }
    }
}
