//! Where a guest's program breaks, and how: by an instruction in it that breaks, or by a frame that it may not execute.
//!
//! By an instruction the break recoils: the instruction that was there is put back, the vCPU steps over it, and the break is set again. Another
//! vCPU may run past it meanwhile. By the frame nothing in the guest is written: each instruction in the frame of a break is an event, and is let
//! through alone.

use crate::scenario::BreakBy;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Cpu, CpuEventKind, Errno, Event, Gfn, Gpa, MonitorMode, Rights, VcpuId};
use mem_event_client::Client;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A break that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    gpa: Gpa,
    /// What is there without it; by its frame nothing else is.
    old: u8,
    /// Whether its breakpoint is there, or is put back after a step.
    is_set: bool,
}

impl Break {
    /// Puts a breakpoint there, which goes with the connection however that ends.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn set(client: &mut Client, gpa: Gpa) -> anyhow::Result<Break> {
        client.set_breakpoint(gpa, false).map(|(old, _)| Break { gpa, old, is_set: true })
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_at(&self, gpa: Gpa) -> bool {
        self.gpa == gpa
    }

    /// Puts back what was there, if nobody else breaks there.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn take_back(&mut self, client: &mut Client) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_set) { client.clear_breakpoint(self.gpa).map(drop) } else { Ok(()) }
    }
}

/// How an event is answered that was heard of before the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// As they say.
    ByRules,
    /// Without more.
    Answer,
    /// The instruction is let through alone.
    Emulate,
}

/// What an event is to breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Nothing.
    None,
    /// A break.
    Break(usize),
    /// A step behind a break, or an instruction beside one in its frame.
    Beside,
}

/// The breaks of a listener.
#[derive(Debug)]
pub struct Breaks {
    by: BreakBy,
    set: Vec<Break>,
    /// Where vCPUs step over a breakpoint.
    stepping: HashMap<VcpuId, Gpa>,
    /// The frames that may not be executed, with the rights that they had.
    closed: HashMap<Gfn, AccessType>,
    /// Whether they are taken back; what was met of them before is known still.
    are_over: bool,
}

/// Asks for these events; one who has asked for them already has them.
///
/// # Errors
/// The plugin refuses.
pub fn monitor(client: &mut Client, kind: CpuEventKind, mode: MonitorMode) -> anyhow::Result<()> {
    match client.control(Control::Monitor { kind, mode, on_change_only: false })? {
        Ok(_) | Err((Errno::EEXIST, _)) => Ok(()),
        Err((errno, why)) => anyhow::bail!("{kind} cannot be monitored: {errno}, {why}"),
    }
}

impl Breaks {
    /// None is set.
    #[must_use]
    pub fn by(by: BreakBy) -> Breaks {
        Breaks { by, set: Vec::new(), stepping: HashMap::new(), closed: HashMap::new(), are_over: false }
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Breaks here too.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn add(&mut self, client: &mut Client, gpa: Gpa) -> anyhow::Result<()> {
        let one = match self.by {
            BreakBy::Int3 => {
                monitor(client, CpuEventKind::Int3, MonitorMode::Sync)?;
                monitor(client, CpuEventKind::SingleStep, MonitorMode::Sync)?;
                Break::set(client, gpa)?
            }
            BreakBy::Frame => {
                self.close(client, gpa.gfn())?;
                Break { gpa, old: 0, is_set: true }
            }
        };
        self.set.push(one);
        Ok(())
    }

    fn close(&mut self, client: &mut Client, gfn: Gfn) -> anyhow::Result<()> {
        let Entry::Vacant(closed) = self.closed.entry(gfn) else { return Ok(()) };
        let access = client.access(gfn)?;
        anyhow::ensure!(
            access.rights().contains(Rights::X),
            "frame {gfn} may not be executed already ({access}): its fetches are watched, so it cannot hold a break by its frame"
        );
        closed.insert(access);
        client.set_access(gfn, access.without(Rights::X))
    }

    /// The rights that a frame gets where it shall have these.
    #[must_use]
    pub fn keep(&self, gfn: Gfn, access: AccessType) -> AccessType {
        if self.closed.contains_key(&gfn) && !self.are_over { access.without(Rights::X) } else { access }
    }

    /// What an event of this vCPU is to them.
    #[must_use]
    pub fn met(&self, vcpu: VcpuId, event: Event) -> Met {
        let at = |gpa: Gpa| self.set.iter().position(|one| one.is_at(gpa));
        match event {
            Event::Cpu(Cpu::Int3 { rip, gfn }) if self.by == BreakBy::Int3 => {
                at(Gpa(gfn.gpa().0 | rip.0 & 0xfff)).map_or(Met::None, Met::Break)
            }
            Event::Cpu(Cpu::SingleStep { .. }) if self.stepping.contains_key(&vcpu) => Met::Beside,
            Event::Violation { gfn, offset, rights, .. }
                if rights.contains(Rights::X) && self.closed.contains_key(&gfn) =>
            {
                at(Gpa(gfn.gpa().0 | u64::from(offset))).map_or(Met::Beside, Met::Break)
            }
            _ => Met::None,
        }
    }

    /// How what they met is answered.
    #[must_use]
    pub fn answer(&self) -> Heard {
        match self.by {
            BreakBy::Int3 => Heard::Answer,
            BreakBy::Frame => Heard::Emulate,
        }
    }

    /// A vCPU stands at a break, and goes over it with its answer.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn pass(&mut self, at: usize, vcpu: VcpuId, client: &mut Client) -> anyhow::Result<()> {
        if self.by == BreakBy::Frame {
            return Ok(());
        }
        let Break { gpa, old, .. } = self.set[at];
        self.step_over(gpa, old, vcpu, client)
    }

    /// A vCPU stands at a breakpoint that is none of these: if it is another client's, which holds no access ring, the vCPU steps over it with its answer.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn meets_anothers(&mut self, gpa: Gpa, vcpu: VcpuId, client: &mut Client) -> anyhow::Result<bool> {
        let Some(one) = client.breakpoints_from(gpa)?.first().filter(|one| one.gpa == gpa).copied() else {
            return Ok(false);
        };
        monitor(client, CpuEventKind::SingleStep, MonitorMode::Sync)?;
        self.step_over(gpa, one.beneath, vcpu, client).map(|()| true)
    }

    fn step_over(&mut self, gpa: Gpa, old: u8, vcpu: VcpuId, client: &mut Client) -> anyhow::Result<()> {
        client.insist(&Call::WriteFrame { gfn: gpa.gfn(), offset: gpa.offset(), bytes: vec![old] })?;
        client.values(&Call::Control(Control::SingleStep { vcpu, on: true }))?;
        self.stepping.insert(vcpu, gpa);
        Ok(())
    }

    /// A vCPU may have stepped over a break, which is set again.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn passed(&mut self, vcpu: VcpuId, client: &mut Client) -> anyhow::Result<()> {
        let Some(gpa) = self.stepping.remove(&vcpu) else { return Ok(()) };
        client.values(&Call::Control(Control::SingleStep { vcpu, on: false }))?;
        if self.stepping.values().any(|other| *other == gpa) {
            return Ok(());
        }
        client.set_breakpoint(gpa, false)?;
        let own = self.set.iter_mut().find(|one| one.is_at(gpa));
        if own.as_ref().is_none_or(|_| self.are_over) {
            // It stays where somebody else breaks there.
            client.clear_breakpoint(gpa)?;
            own.into_iter().for_each(|one| one.is_set = false);
        }
        Ok(())
    }

    /// The guest's program is as it was. What was met of the breaks before is known still.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn take_back(&mut self, client: &mut Client) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.are_over, true) {
            return Ok(());
        }
        match self.by {
            // Those that are stepped over are when that is done.
            BreakBy::Int3 => {
                let stepping: Vec<Gpa> = self.stepping.values().copied().collect();
                let mut rest = self.set.iter_mut().filter(|one| !stepping.contains(&one.gpa));
                rest.try_for_each(|one| one.take_back(client))
            }
            BreakBy::Frame => self.closed.iter().try_for_each(|(gfn, access)| client.set_access(*gfn, *access)),
        }
    }

    /// Leaves the guest's program as it was.
    ///
    /// # Errors
    /// The connection ended.
    pub fn leave(&mut self, client: &mut Client) -> anyhow::Result<()> {
        for (vcpu, _) in self.stepping.drain() {
            client.values(&Call::Control(Control::SingleStep { vcpu, on: false }))?;
        }
        self.take_back(client)?;
        self.closed.clear();
        let set = std::mem::take(&mut self.set);
        match self.by {
            BreakBy::Int3 => set.into_iter().try_for_each(|mut one| one.take_back(client)),
            BreakBy::Frame => Ok(()),
        }
    }
}
