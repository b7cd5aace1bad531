//! What a listener does besides its rules: the guest's kernel found, what waits for it done, breaks set and recoiled, and who made an event.
//!
//! A kernel of its own run is found while it boots: it writes its entry for system calls into a register, which is told. It patches its own code
//! until it begins to schedule, so what is wanted of it is done when its first thread begins.

use super::breaks::{Break, Breaks, By, Heard, Met, monitor};
use crate::guest::symbols::Symbols;
use crate::scenario::{Listening, MemoryAct};
use crate::toolstack;
use crate::toolstack::doing::note_about;
use crate::toolstack::kernel::{self, LSTAR};
use crate::toolstack::transcript::BESIDE;
use crate::toolstack::who::Who;
use mem_event::message::{Call, Space};
use mem_event::registers::Registers;
use mem_event::{AccessType, Control, Cpu, CpuEventKind, Event, Gfn, Gla, Gpa, MonitorMode, Request, VcpuId};
use mem_event_client::Client;
use std::collections::HashMap;

/// The function that the kernel's first thread begins with.
const FIRST: &str = "kernel_init";
/// What functions may begin with: `endbr64`; then the call of five bytes that the kernel makes a nop of, once it has counted all of them.
const ENDBR: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
const CALL: u8 = 0xe8;
const CALL_BYTES: u64 = 5;

/// How far a kernel is that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// None is waited for.
    None,
    /// It has not written its entry for system calls.
    Entry,
    /// It boots, and patches its code; this break is at its first thread.
    Boots(Break),
}

/// What it does.
#[derive(Debug)]
pub struct Looking {
    wanted: Listening,
    /// What is done when the kernel is there.
    later: Vec<MemoryAct>,
    /// Monitors that somebody asked for.
    monitors: Vec<CpuEventKind>,
    stage: Stage,
    breaks: Breaks,
    told: u64,
    /// Whether nothing is left to do once all steps are told.
    leaves_behind_steps: bool,
    /// How many instructions of each vCPU are still to be told.
    steps: HashMap<VcpuId, u64>,
}

impl Looking {
    /// What a listener with these settings does; `later` is done when the kernel is there.
    #[must_use]
    pub fn new(wanted: &Listening, later: Vec<MemoryAct>, monitors: Vec<CpuEventKind>) -> Looking {
        let (wanted, stage, breaks) = (wanted.clone(), Stage::None, Breaks::by(wanted.break_by));
        Looking { wanted, later, monitors, stage, breaks, told: 0, leaves_behind_steps: false, steps: HashMap::new() }
    }

    /// Whether as many breaks were told as are wanted, or, of a machine that is attached to, as many steps.
    #[must_use]
    pub fn has_enough(&self) -> bool {
        self.wanted.count.is_some_and(|count| self.told >= count) || self.leaves_behind_steps && self.steps.is_empty()
    }

    /// The guest is about to start: its kernel is waited for, where there is one to wait for.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn wait_for_the_kernel(&mut self, client: &mut Client, symbols: &Symbols) -> anyhow::Result<()> {
        if !symbols.linear().is_wanted() {
            return self.set_up(client, VcpuId(0), symbols);
        }
        self.stage = Stage::Entry;
        monitor(client, CpuEventKind::Msr, MonitorMode::Sync)
    }

    /// The guest runs: its kernel is looked for at once, and what waits for it is done.
    ///
    /// # Errors
    /// The plugin refuses, or no kernel is there.
    pub fn look_now(&mut self, client: &mut Client, symbols: &Symbols) -> anyhow::Result<()> {
        if !symbols.linear().is_wanted() && !self.has_rest() {
            return Ok(());
        }
        client.pause()?;
        if symbols.linear().is_wanted() {
            kernel::find(client, VcpuId(0), None, symbols.linear())?;
        }
        self.set_up(client, VcpuId(0), symbols)?;
        self.leaves_behind_steps = self.wanted.steps.is_some();
        client.unpause()
    }

    /// Whether anything is to be done once the kernel is there.
    fn has_rest(&self) -> bool {
        !self.later.is_empty() || !self.wanted.breaks.is_empty() || self.wanted.steps.is_some()
    }

    /// What waits for a kernel that the guest did not come to have, in words.
    #[must_use]
    pub fn still_waits(&self) -> Option<String> {
        let waits = self.later.iter().filter_map(MemoryAct::place).chain(&self.wanted.breaks).next()?;
        let why = match self.stage {
            Stage::None => return None,
            Stage::Entry => "no Linux has begun in the guest",
            Stage::Boots(_) => "the guest's Linux has not begun its first thread",
        };
        Some(format!("{waits} was never set: {why}"))
    }

    /// Does what waited, and sets the breaks; a vCPU stands.
    fn set_up(&mut self, client: &mut Client, vcpu: VcpuId, symbols: &Symbols) -> anyhow::Result<()> {
        self.stage = Stage::None;
        let places = self.later.iter().filter_map(MemoryAct::place).chain(&self.wanted.breaks);
        for place in places.filter(|place| place.is_linear()) {
            kernel::resolve(client, vcpu, &place.text, symbols.linear())?;
        }
        for act in std::mem::take(&mut self.later) {
            let done = toolstack::carry_out(&act, client, symbols)?;
            client.note(&done.text)?;
            anyhow::ensure!(done.failure.is_none(), "{}", done.failure.unwrap_or_default());
        }
        if let Some(steps) = self.wanted.steps.filter(|steps| *steps > 0) {
            monitor(client, CpuEventKind::SingleStep, MonitorMode::Sync)?;
            for vcpu in (0..u32::try_from(client.info()?.vcpus)?).map(VcpuId) {
                client.values(&Call::Control(Control::SingleStep { vcpu, on: true }))?;
                self.steps.insert(vcpu, steps);
            }
        }
        for place in self.wanted.breaks.clone() {
            symbols.linear().check_code(&place.text)?;
            self.breaks.add(client, place.address(symbols)?)?;
            client.note(&format!("break at {place}"))?;
        }
        Ok(())
    }

    /// Hears of an event before the rules do: whether they do, or how it is answered.
    ///
    /// # Errors
    /// The connection ended, or the plugin refuses something.
    pub fn hears(
        &mut self,
        (request, registers): (&Request, Option<&Registers>),
        client: &mut Client,
        symbols: &Symbols,
    ) -> anyhow::Result<Heard> {
        let vcpu = request.vcpu;
        match self.breaks.met(vcpu, request.event) {
            Met::Break(at) => {
                let heard = self.breaks.pass(at, (vcpu, registers), client)?;
                self.broke((vcpu, registers), client, symbols)?;
                return Ok(heard);
            }
            Met::Beside => {
                let heard = self.breaks.passed(vcpu, client)?;
                client.note(&note_about(vcpu, BESIDE))?;
                return Ok(heard);
            }
            Met::None => {}
        }
        match request.event {
            Event::Cpu(Cpu::Int3 { rip, gfn }) => {
                let gpa = Gpa(gfn.gpa().0 | rip.0 & 0xfff);
                if let Some(heard) = self.hears_of_breakpoint(gpa, (vcpu, registers), client, symbols)? {
                    client.note(&note_about(vcpu, BESIDE))?;
                    return Ok(heard);
                }
            }
            Event::Cpu(Cpu::SingleStep { .. }) => {
                if let Some(left) = self.steps.get_mut(&vcpu) {
                    *left -= 1;
                    if *left == 0 {
                        self.steps.remove(&vcpu);
                        client.values(&Call::Control(Control::SingleStep { vcpu, on: false }))?;
                    }
                }
            }
            Event::Cpu(Cpu::Msr { msr, new, .. }) if self.stage == Stage::Entry => {
                if msr == LSTAR && new >= crate::guest::kernel::flat::IMAGE {
                    self.enters(vcpu, new, client, symbols)?;
                }
                if !self.monitors.contains(&CpuEventKind::Msr) {
                    client.note(&note_about(vcpu, BESIDE))?;
                    return Ok(Heard::Answer);
                }
            }
            Event::Cpu(Cpu::Msr { msr, .. }) if !self.wanted.msrs.is_empty() && !self.wanted.msrs.contains(&msr) => {
                client.note(&note_about(vcpu, BESIDE))?;
                return Ok(Heard::Answer);
            }
            _ => {}
        }
        if symbols.linear().found().is_some() {
            self.tell((vcpu, registers), client, symbols)?;
        }
        Ok(Heard::ByRules)
    }

    /// The same of a breakpoint that is none of its breaks; none where it is like any other event.
    fn hears_of_breakpoint(
        &mut self,
        gpa: Gpa,
        by: By<'_>,
        client: &mut Client,
        symbols: &Symbols,
    ) -> anyhow::Result<Option<Heard>> {
        if let Stage::Boots(mut one) = self.stage
            && one.is_at(gpa)
        {
            one.take_back(client)?;
            self.set_up(client, by.0, symbols)?;
            return Ok(Some(Heard::Answer));
        }
        if let Some(heard) = self.breaks.meets_anothers(gpa, by, client)? {
            return Ok(Some(heard));
        }
        // The kernel's own, by which it patches its code.
        let is_ours = !self.breaks.is_empty() || self.stage != Stage::None;
        Ok((is_ours && !self.monitors.contains(&CpuEventKind::Int3)).then_some(Heard::ByRules))
    }

    /// The kernel writes its entry for system calls, and is found by that.
    fn enters(&mut self, vcpu: VcpuId, entry: u64, client: &mut Client, symbols: &Symbols) -> anyhow::Result<()> {
        kernel::find(client, vcpu, Some(entry), symbols.linear())?;
        // What changes nothing in the kernel need not wait until it has patched itself.
        let first = if self.has_rest() { first_thread(client, vcpu, symbols)? } else { None };
        match first {
            Some(one) => self.stage = Stage::Boots(one),
            None => self.set_up(client, vcpu, symbols)?,
        }
        if self.monitors.contains(&CpuEventKind::Msr) {
            return Ok(());
        }
        monitor(client, CpuEventKind::Msr, MonitorMode::Disabled)
    }

    /// Notes who made an event.
    fn tell(&self, by: By<'_>, client: &mut Client, symbols: &Symbols) -> anyhow::Result<()> {
        let (vcpu, _) = by;
        match Who::ask(client, by, symbols, self.wanted.process, &[])? {
            Some(who) => client.note(&note_about(vcpu, &who.note())).map(drop),
            None => Ok(()),
        }
    }

    /// A vCPU stands at a break: who made it is noted, if it is one that is to be told.
    fn broke(&mut self, by: By<'_>, client: &mut Client, symbols: &Symbols) -> anyhow::Result<()> {
        let (vcpu, _) = by;
        let texts = &self.wanted.strings;
        let who = Who::ask(client, by, symbols, self.wanted.process, texts)?;
        let holds = who.as_ref().map_or(texts.is_empty(), |who| who.holds(texts));
        if self.has_enough() || !holds {
            return client.note(&note_about(vcpu, BESIDE)).map(drop);
        }
        self.told += 1;
        if self.has_enough() {
            // At once: until the listener leaves, the guest may come there many times.
            self.breaks.take_back(client)?;
        }
        who.map_or(Ok(()), |who| client.note(&note_about(vcpu, &who.note())).map(drop))
    }

    /// The rights that a frame gets where a rule would have it get these: where a break waits it is not executed.
    #[must_use]
    pub fn keep(&self, gfn: Gfn, access: AccessType) -> AccessType {
        self.breaks.keep(gfn, access)
    }

    /// Leaves the guest's program as it was.
    ///
    /// # Errors
    /// The connection ended.
    pub fn leave(&mut self, client: &mut Client) -> anyhow::Result<()> {
        self.breaks.leave(client)?;
        for (vcpu, _) in self.steps.drain() {
            client.values(&Call::Control(Control::SingleStep { vcpu, on: false }))?;
        }
        Ok(())
    }
}

/// Breaks at the kernel's first thread, behind what its function begins with and is patched: the kernel compares that with what it expects there.
fn first_thread(client: &mut Client, vcpu: VcpuId, symbols: &Symbols) -> anyhow::Result<Option<Break>> {
    let found = symbols.linear().found();
    let first = found.and_then(|found| Some(found.address(found.kernel.names.address(FIRST)?)));
    let Some(first) = first else { return Ok(None) };
    let space = Space { vcpu, cr3: None };
    let begins = client.read_linear(space, Gla(first), 16)?;
    let marked = if begins.starts_with(ENDBR) { ENDBR.len() } else { 0 };
    let called = if begins.get(marked) == Some(&CALL) { CALL_BYTES } else { 0 };
    let gpa = client.translate(space, Gla(first + marked as u64 + called))?;
    monitor(client, CpuEventKind::Int3, MonitorMode::Sync)?;
    Break::set(client, gpa).map(Some)
}
