//! Where a guest's program breaks, and how: by an instruction in it that breaks, or by a frame that it may not execute.
//!
//! By an instruction: the answer brings the one that was there, which the vCPU does alone, and the breakpoint stays. Where requests have no room for
//! that, or QEMU cannot do it, the break recoils: the instruction is put back, the vCPU steps over it, and the break is set again; another vCPU may run
//! past it meanwhile. By the frame nothing in the guest is written: each instruction in the frame of a break is an event, and is let through alone.

use crate::scenario::BreakBy;
use mem_event::message::{Call, Over, Reply};
use mem_event::registers::Registers;
use mem_event::{
    AccessType, Control, Cpu, CpuEventKind, Errno, Event, Gfn, Gla, Gpa, MonitorMode, PAGE_SIZE, Rights, VcpuId,
};
use mem_event_client::Client;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Bytes of the longest instruction.
const LONGEST: usize = 15;

/// A break that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    gpa: Gpa,
    /// What is there without it; by its frame nothing else is.
    old: u8,
    /// How a vCPU gets over its breakpoint.
    over: Over,
    /// Whether its breakpoint is there, or is put back after a step.
    is_set: bool,
}

impl Break {
    /// Puts a breakpoint there, which goes with the connection however that ends.
    ///
    /// # Errors
    /// The plugin refuses, or the guest would get it.
    pub fn set(client: &mut Client, gpa: Gpa) -> anyhow::Result<Break> {
        let put = client.set_breakpoint(gpa, false)?;
        let mut one = Break { gpa, old: put.beneath, over: put.over, is_set: true };
        if put.over == Over::Delivered {
            one.take_back(client)?;
            anyhow::bail!(
                "no break at {gpa}: the guest would get it, as this QEMU exports nothing by which a vCPU could go on without (mem-event doctor); break by the frame"
            );
        }
        Ok(one)
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// As they say.
    ByRules,
    /// Without more.
    Answer,
    /// The instruction is let through alone.
    Emulate,
    /// The instruction that these bytes begin with is done alone in its place.
    Instead(Vec<u8>),
}

/// A vCPU that stands, and its registers where its request brought them.
pub type By<'a> = (VcpuId, Option<&'a Registers>);

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
    /// How vCPUs get over another client's breakpoints, once one was met.
    over: Option<Over>,
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
        Breaks { by, set: Vec::new(), over: None, stepping: HashMap::new(), closed: HashMap::new(), are_over: false }
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
                Break::set(client, gpa)?
            }
            BreakBy::Frame => {
                self.close(client, gpa.gfn())?;
                Break { gpa, old: 0, over: Over::default(), is_set: true }
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

    /// How the vCPU goes over the break at which it stands.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn pass(&mut self, at: usize, by: By<'_>, client: &mut Client) -> anyhow::Result<Heard> {
        match self.by {
            BreakBy::Frame => Ok(Heard::Emulate),
            BreakBy::Int3 => {
                let one = self.set[at];
                self.step_over(one, by, client)
            }
        }
    }

    /// A vCPU stands at a breakpoint that is none of these: if it is another client's, which holds no access ring, the vCPU steps over it with its answer.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn meets_anothers(&mut self, gpa: Gpa, by: By<'_>, client: &mut Client) -> anyhow::Result<Option<Heard>> {
        let Some(found) = client.breakpoints_from(gpa)?.first().filter(|one| one.gpa == gpa).copied() else {
            return Ok(None);
        };
        let over = match self.over {
            Some(over) => over,
            // Who sets one there is told how it is got over: in this QEMU each is so.
            None => {
                let mut one = Break::set(client, gpa)?;
                one.take_back(client)?;
                *self.over.insert(one.over)
            }
        };
        self.step_over(Break { gpa, old: found.beneath, over, is_set: false }, by, client).map(Some)
    }

    fn step_over(&mut self, one: Break, (vcpu, registers): By<'_>, client: &mut Client) -> anyhow::Result<Heard> {
        let Break { gpa, old, over, .. } = one;
        if let Some(registers) = registers.filter(|_| over == Over::Brought) {
            return Ok(Heard::Instead(code(client, gpa, old, (vcpu, registers))?));
        }
        monitor(client, CpuEventKind::SingleStep, MonitorMode::Sync)?;
        client.insist(&Call::WriteFrame { gfn: gpa.gfn(), offset: gpa.offset(), bytes: vec![old] })?;
        client.values(&Call::Control(Control::SingleStep { vcpu, on: true }))?;
        self.stepping.insert(vcpu, gpa);
        Ok(Heard::Answer)
    }

    /// How a vCPU is answered that stands beside a break: in its frame, or behind one that it has stepped over and that is set again.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn passed(&mut self, vcpu: VcpuId, client: &mut Client) -> anyhow::Result<Heard> {
        let Some(gpa) = self.stepping.remove(&vcpu) else { return Ok(Heard::Emulate) };
        client.values(&Call::Control(Control::SingleStep { vcpu, on: false }))?;
        if self.stepping.values().any(|other| *other == gpa) {
            return Ok(Heard::Answer);
        }
        client.set_breakpoint(gpa, false)?;
        let own = self.set.iter_mut().find(|one| one.is_at(gpa));
        if own.as_ref().is_none_or(|_| self.are_over) {
            // It stays where somebody else breaks there.
            client.clear_breakpoint(gpa)?;
            own.into_iter().for_each(|one| one.is_set = false);
        }
        Ok(Heard::Answer)
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

/// The code at which a vCPU stands, without the breakpoint: as many bytes as an instruction may have, and fewer where no more are mapped.
fn code(client: &mut Client, gpa: Gpa, old: u8, (vcpu, registers): (VcpuId, &Registers)) -> anyhow::Result<Vec<u8>> {
    let in_page = LONGEST.min(PAGE_SIZE - usize::from(gpa.offset()));
    let mut code = client.read(gpa.gfn(), gpa.offset(), u16::try_from(in_page)?)?;
    if in_page < LONGEST {
        let (cr3, next) = (Some(registers.control[2]), registers.rip.wrapping_add(in_page as u64));
        let rest = Call::ReadLinear { vcpu, cr3, address: Gla(next), len: u16::try_from(LONGEST - in_page)? };
        if let Reply::Bytes(rest) = client.call(&rest)? {
            code.extend(rest);
        }
    }
    if let Some(first) = code.first_mut() {
        *first = old;
    }
    Ok(code)
}
