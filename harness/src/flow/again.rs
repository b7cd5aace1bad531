//! A recorded run's events, made again without a guest: each vCPU makes as many as it made, on the ring that had the most, and so does a foreign
//! caller. The engine itself serves them, under a policy and in a schedule that a seed makes; time is counted in steps of it. A listener
//! answers the oldest request and lets the access pass.

use super::measure::see;
use super::told::{Told, Watch};
use anyhow::{Context as _, anyhow};
use mem_event::flow::FlowKind;
use mem_event::trace::{Context, Header, Step, Tape, Writer};
use mem_event::{
    Access, AccessSource, AccessType, Back, Control, CpuEvent, CpuEventKind, Domain, DomainConfig, Effect, Effects,
    Flags, Gfn, Gla, Input, Layout, MonitorMode, Outcome, Request, Rights, Ring, RingPage, VcpuId, With,
};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::path::Path;

const RING: Ring = Ring::Access;

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// An event that stops it until its answer.
    Fault,
    /// An event that stops nobody.
    Report,
}

/// What is made again.
#[derive(Clone, Debug)]
pub struct Events {
    vcpus: Vec<Vec<Act>>,
    foreign: u32,
    slots: u32,
}

/// The events of the ring that has the most.
pub fn of(tape: &mut Tape) -> Events {
    let none = Events { vcpus: vec![Vec::new(); tape.header().config.vcpus as usize], foreign: 0, slots: 1 };
    let mut rings = [none.clone(), none.clone(), none];
    for number in 1..=tape.len() {
        let Ok(step) = tape.step(number) else { break };
        if let (Input::Control(Control::Enable { ring, layout, slots }), Outcome::Proceed) =
            (&step.input, &step.outcome)
        {
            rings[ring.index()].slots = if *slots == 0 { layout.max_slots() } else { *slots };
        }
        for effect in &step.effects.list {
            let Effect::Requested { ring, request, .. } = effect else { continue };
            let events = &mut rings[ring.index()];
            let stops = request.flags.contains(Flags::VCPU_PAUSED);
            if request.flags.contains(Flags::FOREIGN) {
                events.foreign += 1;
            } else if let Some(program) = events.vcpus.get_mut(request.vcpu.0 as usize) {
                program.push(if stops { Act::Fault } else { Act::Report });
            }
        }
    }
    let count = |it: &Events| it.vcpus.iter().map(Vec::len).sum::<usize>() + it.foreign as usize;
    let most = (0..rings.len()).max_by_key(|ring| count(&rings[*ring])).unwrap_or_default();
    rings[most].clone()
}

/// The same events under this policy, on so many slots if that is given; kept as a trace, if a file is named.
///
/// # Errors
/// Slots that no ring has, a file that cannot be written.
pub fn run(
    events: &Events,
    flow: FlowKind,
    seed: u64,
    slots: Option<u32>,
    keep: Option<&Path>,
) -> anyhow::Result<Told> {
    let events = Events { slots: slots.unwrap_or(events.slots), ..events.clone() };
    let mut play = Play::new(&events, flow, keep)?;
    let mut dice = Xoshiro256PlusPlus::seed_from_u64(seed);
    loop {
        let choices = play.choices();
        if choices.is_empty() {
            break;
        }
        let drawn = usize::try_from(dice.next_u64() >> 33).unwrap_or_default();
        play.take(choices[drawn % choices.len()])?;
    }
    play.end()
}

#[derive(Clone, Copy)]
enum Choice {
    Run(u32),
    Foreign,
    Answer,
}

struct Play {
    domain: Domain,
    back: Back,
    watch: Watch,
    writer: Option<Writer>,
    vcpus: Vec<Worker>,
    foreign: u32,
    /// The foreign caller found the ring full, and nothing has happened since.
    refused: bool,
    out: VecDeque<Request>,
    now: u64,
}

struct Worker {
    /// What is left, the next last.
    acts: Vec<Act>,
    /// Its request is on the ring, or has been: when it runs, that event is over.
    asked: bool,
}

impl Play {
    fn new(events: &Events, flow: FlowKind, keep: Option<&Path>) -> anyhow::Result<Play> {
        let vcpus = u32::try_from(events.vcpus.len()).unwrap_or(u32::MAX);
        let frames = u64::from(vcpus) + u64::from(events.foreign);
        let config = DomainConfig::new(vcpus, vec![(Gfn(0), frames)]);
        let page = RingPage::heap();
        let back = Back::init(page.clone(), RING, Layout::Flags32, events.slots).map_err(|why| anyhow!(why))?;
        let header = Header {
            plugin: env!("CARGO_PKG_VERSION").to_owned(),
            ..Header::of(&format!("events made again, under {flow}"), config.clone())
        };
        let cannot = |path: &Path| format!("cannot write {}", path.display());
        let writer = keep.map(|path| Writer::create(path, &header).with_context(|| cannot(path))).transpose()?;
        let worker = |acts: &Vec<Act>| Worker { acts: acts.iter().rev().copied().collect(), asked: false };
        let mut play = Play {
            domain: Domain::new(config).map_err(|why| anyhow!(why))?,
            back,
            watch: Watch::new(flow, events.vcpus.len(), "steps"),
            writer,
            vcpus: events.vcpus.iter().map(worker).collect(),
            foreign: events.foreign,
            refused: false,
            out: VecDeque::new(),
            now: 0,
        };
        let set = [
            Control::SetFlow { ring: RING, flow },
            Control::Enable { ring: RING, layout: Layout::Flags32, slots: events.slots },
            Control::SetAccess { first: Gfn(0), count: frames, access: AccessType::N },
            Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Async, on_change_only: false },
        ];
        for control in set {
            match play.step(Input::Control(control), With::page(&page)) {
                Outcome::Proceed => {}
                other => return Err(anyhow!("{other:?}")),
            }
        }
        Ok(play)
    }

    fn choices(&self) -> Vec<Choice> {
        let numbered = (0..).zip(&self.vcpus);
        let runs = |vcpu: u32| self.domain.waiting(VcpuId(vcpu)).is_none();
        let mut choices: Vec<Choice> = numbered
            .filter(|(vcpu, it)| runs(*vcpu) && (it.asked || !it.acts.is_empty()))
            .map(|(vcpu, _)| Choice::Run(vcpu))
            .collect();
        if self.foreign > 0 && !self.refused {
            choices.push(Choice::Foreign);
        }
        if !self.out.is_empty() {
            choices.push(Choice::Answer);
        }
        choices
    }

    fn take(&mut self, choice: Choice) -> anyhow::Result<()> {
        match choice {
            Choice::Run(vcpu) => self.go_on(vcpu),
            Choice::Foreign => {
                let frame = self.vcpus.len() as u64 + u64::from(self.foreign) - 1;
                let outcome = self.step(Input::Foreign { access: read_of(frame) }, With::NOTHING);
                self.refused = outcome == Outcome::Retry(mem_event::Errno::EBUSY);
                self.foreign -= u32::from(!self.refused);
            }
            Choice::Answer => {
                if let Some(request) = self.out.pop_front() {
                    self.back.answer(&request.answer());
                    let _ = self.step(Input::Kick { ring: RING }, With::NOTHING);
                    self.refused = false;
                }
            }
        }
        while let Some(request) = self.back.take().context("the ring holds no request")? {
            self.out.push_back(request);
        }
        Ok(())
    }

    fn go_on(&mut self, vcpu: u32) {
        let it = &mut self.vcpus[vcpu as usize];
        if std::mem::take(&mut it.asked) {
            it.acts.pop();
            self.watch.waits(vcpu, None, self.now);
        }
        let Some(act) = it.acts.last() else { return };
        let input = match act {
            Act::Fault => Input::Access { vcpu: VcpuId(vcpu), access: read_of(u64::from(vcpu)) },
            Act::Report => {
                let event = CpuEvent {
                    kind: CpuEventKind::Cr3,
                    value: it.acts.len() as u64,
                    old: 0,
                    number: 0,
                    rip: Gla(0),
                    gfn: Gfn(0),
                };
                Input::CpuEvent { vcpu: VcpuId(vcpu), event }
            }
        };
        let reports = *act == Act::Report;
        if self.step(input, With::NOTHING) == Outcome::Proceed && reports {
            self.vcpus[vcpu as usize].acts.pop();
        }
    }

    fn step(&mut self, input: Input, with: With<'_>) -> Outcome {
        self.now += 1;
        let mut effects = Effects::default();
        let outcome = self.domain.apply(&input, with, &mut effects);
        for effect in &effects.list {
            if let Effect::Requested { request, .. } = effect
                && request.flags.contains(Flags::VCPU_PAUSED)
            {
                self.vcpus[request.vcpu.0 as usize].asked = true;
            }
        }
        if let Some(writer) = &mut self.writer {
            writer.record(Context { time: self.now, ..Context::default() }, &input, &outcome, &effects);
        }
        let step = Step { time: self.now, code: Vec::new(), connection: 0, input, outcome, effects };
        see(&mut self.watch, &step);
        step.outcome
    }

    fn end(self) -> anyhow::Result<Told> {
        if let Some(writer) = self.writer {
            writer.finish().map_err(|why| anyhow!(why))?;
        }
        let over = self.foreign == 0 && self.vcpus.iter().all(|it| it.acts.is_empty());
        let ended = if over { "all events were made" } else { "nobody can go on" };
        Ok(self.watch.end(ended.to_owned(), self.now))
    }
}

fn read_of(frame: u64) -> Access {
    let gla = Some(Gla(frame << 12));
    Access { gfn: Gfn(frame), offset: 0, gla, rights: Rights::R, source: AccessSource::Instruction, rip: 0 }
}
