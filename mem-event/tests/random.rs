//! Random games: vCPUs, foreign callers, a toolstack and consumers, honest and not, against the engine and the reference at once.
//!
//! After each step the outcome, the effects, every vCPU's wait, every frame's type and rights and all accounts agree with the
//! reference, every invariant holds, and no foreign caller is left unaware that he could go on. After each game everybody is served:
//! nobody sleeps, and every slot is free.
//!
//! `MEM_EVENT_STEPS` sets how many steps are made, `MEM_EVENT_SEED` replays one game; with it,
//! `MEM_EVENT_SHOW` shows each step.

#![allow(clippy::cast_possible_truncation, reason = "the games are small")]

mod reference;

use mem_event::{
    About, Access, AccessSource, AccessType, Back, Control, Cpu, CpuEvent, CpuEventKind, Domain, DomainConfig, Effect,
    Effects, Event, Flags, Gfn, Gla, Input, Layout, MonitorMode, NoConsumer, Outcome, P2mType, Request, Response,
    Rights, Ring, RingPage, TrapKind, VcpuId, ViewId, With,
};
use reference::{Reference, Standing, Wait};
use std::collections::VecDeque;

const GAME: u32 = 3000;

/// Steele, Lea and Flood's splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

/// One ring as its consumer sees it.
#[derive(Default)]
struct Consumer {
    back: Option<Back>,
    /// Put by the engine, not taken.
    expected: VecDeque<Request>,
    /// Taken, not answered.
    inbox: Vec<Request>,
    /// Answered, not looked at by the engine.
    posted: Vec<Response>,
    broken: bool,
    /// Responses that the engine took since the ring began.
    consumed: u32,
}

struct Game {
    dice: Dice,
    domain: Domain,
    reference: Reference,
    consumers: [Consumer; 3],
    effects: Effects,
    /// Foreign accesses that were told to come back, and not since told that they may.
    foreign: Vec<Access>,
    /// What each vCPU did last: it looks again with the same.
    last: Vec<Option<Input>>,
    steps: u64,
    show: bool,
    name: String,
}

impl Game {
    fn new(seed: u64) -> Game {
        let mut dice = Dice(seed);
        let (vcpus, frames) = (1 + dice.below(5) as u32, 4 + dice.below(9));
        let config = DomainConfig::new(vcpus, vec![(Gfn(0), frames)]);
        Game {
            domain: Domain::new(config).expect("a good config"),
            reference: Reference::new(vcpus, frames as usize),
            consumers: Default::default(),
            effects: Effects::default(),
            foreign: Vec::new(),
            last: vec![None; vcpus as usize],
            steps: 0,
            show: std::env::var_os("MEM_EVENT_SHOW").is_some(),
            name: format!("game {seed:#x}"),
            dice,
        }
    }

    fn fail(&self, input: &Input, what: &str) -> ! {
        panic!("{}, step {}: {input:?}: {what}\nMEM_EVENT_SEED replays it", self.name, self.steps);
    }

    fn step(&mut self, input: &Input) -> Outcome {
        self.step_with(input, With::NOTHING)
    }

    fn step_with(&mut self, input: &Input, with: With<'_>) -> Outcome {
        self.steps += 1;
        self.effects.clear();
        let outcome = self.domain.apply(input, with, &mut self.effects);
        let ring = match input {
            Input::Kick { ring } | Input::ConsumerLost { ring } => Some(*ring),
            Input::Control(Control::Resume { ring } | Control::Disable { ring, .. }) => Some(*ring),
            _ => None,
        };
        let (posted, broken) = match ring {
            Some(ring) => {
                let consumer = &mut self.consumers[ring.index()];
                (std::mem::take(&mut consumer.posted), consumer.broken)
            }
            None => (Vec::new(), false),
        };
        let expected = self.reference.step(input, &posted, broken);
        if self.show {
            eprintln!("{}: {input:?} -> {outcome:?}\n    {:?}", self.steps, self.effects.list);
        }
        if !alike(&outcome, &expected) {
            self.fail(input, &format!("{outcome:?}, the reference says {expected:?}"));
        }
        self.compare_effects(input);
        if let Some(ring) = ring {
            self.account_for(ring, posted);
        }
        self.compare_state(input);
        self.check_foreign(input);
        outcome
    }

    fn compare_effects(&mut self, input: &Input) {
        let mut others = std::mem::take(&mut self.reference.effects);
        for effect in &self.effects.list {
            if *effect == Effect::RetryForeign {
                self.foreign.clear();
                continue;
            }
            let effect = plain(effect);
            match others.iter().position(|other| *other == effect) {
                Some(at) => drop(others.remove(at)),
                None => self.fail(input, &format!("{effect:?} is not expected; left are {others:?}")),
            }
            match effect {
                Effect::Requested { ring, request, .. } => {
                    self.consumers[ring.index()].expected.push_back(request);
                }
                Effect::Closed(ring) | Effect::Broken(ring, _) => self.consumers[ring.index()] = Consumer::default(),
                _ => {}
            }
        }
        if !others.is_empty() {
            self.fail(input, &format!("{others:?} are missing in {:?}", self.effects.list));
        }
    }

    /// Responses that were not looked at stay posted; a ring that is no longer there has none.
    fn account_for(&mut self, ring: Ring, posted: Vec<Response>) {
        let taken = self.effects.list.iter().filter(|it| matches!(it, Effect::Answered { .. })).count();
        let standing = self.reference.channels[ring.index()].standing;
        let consumer = &mut self.consumers[ring.index()];
        if !matches!(standing, Standing::Live | Standing::Draining) {
            *consumer = Consumer::default();
        } else if taken == 0 {
            consumer.posted = posted;
        }
        consumer.consumed += taken as u32;
    }

    fn compare_state(&self, input: &Input) {
        if let Err(sentence) = self.domain.check_invariants() {
            self.fail(input, &sentence);
        }
        for vcpu in 0..self.reference.vcpus.len() {
            let (is, should) = (self.domain.waiting(VcpuId(vcpu as u32)), self.reference.waiting(vcpu));
            if is != should {
                self.fail(input, &format!("vCPU {vcpu} waits for {is:?}, the reference says {should:?}"));
            }
        }
        for (gfn, frame) in (0..).map(Gfn).zip(&self.reference.frames) {
            let (kind, access) = (self.domain.p2m_type(gfn), self.domain.access_type(gfn));
            if (kind, access) != (frame.kind, frame.access) {
                self.fail(input, &format!("frame {gfn} is {kind:?} {access}, the reference says {frame:?}"));
            }
        }
        for ring in Ring::ALL.into_iter().filter(|ring| self.reference.live(*ring)) {
            let (is, should) = (self.domain.free_slots(ring) as usize, self.reference.free(ring));
            if is != should {
                self.fail(input, &format!("{is} slots of the {ring} ring are free, the reference says {should}"));
            }
        }
        let info = self.domain.info();
        let should = (self.reference.resident(), self.reference.paged(), self.reference.budget);
        if (info.resident, info.paged, info.budget) != should {
            self.fail(input, &format!("{info:?}, the reference says {should:?}"));
        }
    }

    /// A foreign caller who was told to come back hears of it when he could go on.
    fn check_foreign(&self, input: &Input) {
        if self.reference.dead {
            return;
        }
        if let Some(access) = self.foreign.iter().find(|access| self.reference.foreign_could_go_on(access)) {
            self.fail(input, &format!("nobody tells the foreign caller of {access:?} that he can go on"));
        }
    }

    fn gfn(&mut self) -> Gfn {
        let frames = self.reference.frames.len() as u64;
        Gfn(if self.dice.one_in(60) { self.dice.pick(&[frames, 1 << 40, u64::MAX]) } else { self.dice.below(frames) })
    }

    fn vcpu(&mut self) -> VcpuId {
        let vcpus = self.reference.vcpus.len() as u64;
        VcpuId(if self.dice.one_in(200) { vcpus as u32 } else { self.dice.below(vcpus) as u32 })
    }

    fn access(&mut self) -> Access {
        let offset = self.dice.below(4096) as u16;
        let gla = (!self.dice.one_in(4)).then(|| Gla(self.dice.roll()));
        let rights = Rights::from_bits(1 + self.dice.below(7) as u8);
        Access { gfn: self.gfn(), offset, gla, rights, source: AccessSource::Instruction, rip: self.dice.below(2) }
    }

    fn cpu_event(&mut self) -> CpuEvent {
        let kind = self.dice.pick(&CpuEventKind::ALL);
        let (value, old) = (self.dice.below(3), self.dice.below(3));
        let rip = Gla(self.dice.below(3) * 0x801);
        CpuEvent { kind, value, old, number: 0x10, rip, gfn: Gfn(2) }
    }

    fn play(&mut self, steps: u32) {
        for _ in 0..steps {
            match self.dice.below(100) {
                0..40 => self.guest(),
                40..48 => self.foreigner(),
                48..76 => self.consume(),
                76..79 => self.misbehave(),
                _ => self.toolstack(),
            }
            if self.reference.dead && self.dice.one_in(50) {
                return;
            }
        }
    }

    fn guest(&mut self) {
        let vcpu = self.vcpu();
        if self.dice.one_in(20) {
            // What it waits for it goes on waiting for.
            let _ = self.step(&Input::Emulated { vcpu });
            return;
        }
        if self.dice.one_in(150) {
            let _ = self.step(&Input::Reset);
            self.last.fill(None);
            return;
        }
        let again = self.last.get(vcpu.0 as usize).cloned().flatten().filter(|_| !self.dice.one_in(6));
        let input = again.unwrap_or_else(|| match self.dice.below(20) {
            0 => Input::Balloon { vcpu, gfn: self.gfn() },
            1 | 2 => Input::CpuEvent { vcpu, event: self.cpu_event() },
            3 if self.dice.one_in(3) => Input::Abandon { vcpu },
            4 => Input::AccessNosleep { vcpu, access: self.access() },
            _ => Input::Access { vcpu, access: self.access() },
        });
        let outcome = self.step(&input);
        if let Some(last) = self.last.get_mut(vcpu.0 as usize) {
            *last = matches!(outcome, Outcome::Wait(_)).then_some(input);
        }
    }

    fn foreigner(&mut self) {
        let access = match self.foreign.pop() {
            Some(access) if !self.dice.one_in(3) => access,
            _ => self.access(),
        };
        if let Outcome::Retry(_) = self.step(&Input::Foreign { access }) {
            self.foreign.push(access);
        }
    }

    /// A consumer takes, answers, signals.
    fn consume(&mut self) {
        let ring = self.dice.pick(&Ring::ALL);
        if self.dice.one_in(3) {
            let input =
                if self.dice.one_in(5) { Input::Control(Control::Resume { ring }) } else { Input::Kick { ring } };
            let _ = self.step(&input);
            return;
        }
        self.take(ring);
        let count = self.consumers[ring.index()].inbox.len() as u64;
        if count == 0 {
            return;
        }
        let at = if self.dice.one_in(3) { self.dice.below(count) as usize } else { 0 };
        let request = self.consumers[ring.index()].inbox.remove(at);
        if ring == Ring::Paging && !self.dice.one_in(8) {
            let _ = self.step(&Input::Control(Control::Prep {
                gfn: request.frame().expect("a paging request has a frame"),
                buffer: true,
            }));
            if self.dice.one_in(10) {
                let _ = self.step(&Input::FillFailed { gfn: request.frame().expect("a paging request has a frame") });
            }
        }
        let mut response = request.answer();
        if self.dice.one_in(6) {
            response.flags = response.flags.union(Flags::EMULATE);
        }
        if self.dice.one_in(10) {
            self.lie(&mut response);
        }
        self.post(ring, response);
    }

    fn lie(&mut self, response: &mut Response) {
        match self.dice.below(5) {
            0 => response.vcpu = self.dice.pick(&[0, 1, 2, 5, 77, u32::MAX]),
            1 => response.about = About::Other(self.gfn().0),
            2 => response.flags = Flags(self.dice.below(64) as u32),
            3 => response.flags = response.flags.union(Flags::DUMMY),
            _ => response.flags = Flags(self.dice.roll() as u32),
        }
    }

    fn take(&mut self, ring: Ring) {
        let consumer = &mut self.consumers[ring.index()];
        let Some(back) = &mut consumer.back else { return };
        while let Some(request) = back.take().expect("the engine writes good requests") {
            let expected = consumer.expected.pop_front();
            // The 40-byte layouts have no room for a model-specific register's old value, nor for a displacement, what raised a debug exception, CR2.
            let expected = expected.map(|request| match request.event {
                Event::Cpu(Cpu::Msr { msr, new, .. }) => {
                    Request { event: Event::Cpu(Cpu::Msr { msr, new, old: 0 }), ..request }
                }
                Event::Cpu(Cpu::Descriptor { table, is_write, information, .. }) => {
                    let event = Event::Cpu(Cpu::Descriptor { table, is_write, information, qualification: 0 });
                    Request { event, ..request }
                }
                Event::Cpu(Cpu::Debug { rip, gfn, .. }) => {
                    Request { event: Event::Cpu(Cpu::Debug { rip, gfn, causes: 0, length: 0 }), ..request }
                }
                Event::Cpu(Cpu::Interrupt { vector, kind, error, .. }) => {
                    Request { event: Event::Cpu(Cpu::Interrupt { vector, kind, error, cr2: 0 }), ..request }
                }
                _ => request,
            });
            assert_eq!(Some(request), expected, "{}, step {}: the wrong request came", self.name, self.steps);
            consumer.inbox.push(request);
        }
        assert!(consumer.expected.is_empty(), "{}, step {}: requests are missing", self.name, self.steps);
    }

    fn post(&mut self, ring: Ring, response: Response) {
        let consumer = &mut self.consumers[ring.index()];
        if let Some(back) = consumer.back.as_mut().filter(|_| !consumer.broken) {
            back.answer(&response);
            consumer.posted.push(response);
        }
    }

    /// A consumer dies, or writes an index that cannot be.
    fn misbehave(&mut self) {
        let ring = self.dice.pick(&Ring::ALL);
        if self.dice.one_in(2) {
            let _ = self.step(&Input::ConsumerLost { ring });
            return;
        }
        let due = self.reference.channels[ring.index()].due.len() as u32;
        let beyond = self.dice.pick(&[1, 2, 64, 0x7fff_ffff, u32::MAX - 64]);
        let consumer = &mut self.consumers[ring.index()];
        if let Some(back) = &mut consumer.back {
            back.set_rsp_prod(consumer.consumed.wrapping_add(due).wrapping_add(beyond));
            consumer.broken = true;
            // At once: a request that is put later would make a small lie true.
            let _ = self.step(&Input::Kick { ring });
        }
    }

    fn toolstack(&mut self) {
        let ring = self.dice.pick(&Ring::ALL);
        let (gfn, access) = (self.gfn(), self.dice.pick(&AccessType::ALL));
        let control = match self.dice.below(48) {
            40..48 => self.views(gfn, access),
            0..5 => Control::Nominate { gfn },
            5..12 => Control::Evict { gfn },
            12..14 => Control::Prep { gfn, buffer: !self.dice.one_in(8) },
            14..18 => Control::SetAccess { first: gfn, count: 1 + self.dice.below(4), access },
            18 => Control::SetDefaultAccess { access },
            19 => Control::GetAccess { gfn },
            20 => Control::Drop { gfn },
            21..23 => Control::SetBudget { frames: self.dice.pick(&[0, 2, 4, 8, 12, u64::MAX]) },
            23 => Control::Pin { gfn },
            24..27 => Control::Unpin { gfn },
            27 => Control::SetAccessRequired { required: self.dice.one_in(2) },
            28 => {
                let policy = self.dice.pick(&[NoConsumer::Wait, NoConsumer::Wait, NoConsumer::Wait, NoConsumer::Relax]);
                let crash = self.dice.one_in(20);
                Control::SetNoConsumer { ring, policy: if crash { NoConsumer::Crash } else { policy } }
            }
            29 => {
                let kind = self.dice.pick(&CpuEventKind::ALL);
                let mode = self.dice.pick(&[MonitorMode::Disabled, MonitorMode::Async, MonitorMode::Sync]);
                let on_change_only = self.dice.one_in(2);
                match self.dice.below(4) {
                    0 => Control::MonitorMask { kind, ignored: self.dice.pick(&[0, 1, 2, u64::MAX]) },
                    1 => Control::MonitorMsr { msr: self.dice.pick(&[0x10, 0x11]), mode, on_change_only },
                    _ => Control::Monitor { kind, mode, on_change_only },
                }
            }
            30 if self.dice.one_in(2) => {
                let (kind, error) = (self.dice.pick(&TrapKind::ALL), self.dice.pick(&[0, 6, u32::MAX]));
                Control::Inject {
                    vcpu: self.vcpu(),
                    vector: self.dice.pick(&[3, 3, 14, 256]),
                    kind,
                    error,
                    cr2: 0x1234,
                }
            }
            30 => Control::SingleStep { vcpu: self.vcpu(), on: self.dice.one_in(2) },
            31 => return self.find_unpopulated(),
            32 => Control::Disable { ring, drain: self.dice.one_in(2) },
            33..35 => return self.share(),
            _ => return self.enable_some(ring),
        };
        let _ = self.step(&Input::Control(control));
    }

    fn views(&mut self, first: Gfn, access: AccessType) -> Control {
        // Mostly on, and some of them there.
        let view = ViewId(self.dice.pick(&[0, 1, 1, 2, 2, 3, 4, 9, 10]));
        match self.dice.below(22) {
            0 | 1 => Control::SetViews { on: !self.dice.one_in(4) },
            2 | 3 => Control::CreateView { access },
            4 => Control::DestroyView { view },
            5..9 => Control::SetViewAccess { view, first, count: 1 + self.dice.below(4), access },
            9 => Control::GetViewAccess { view, gfn: first },
            10 => Control::SetViewDefault { view, access },
            11 | 12 => Control::SwitchView { view },
            13 => Control::GetVcpuView { vcpu: self.vcpu() },
            14 => Control::Populate { gfn: self.beyond() },
            15 => Control::Drop { gfn: self.beyond() },
            16 => Control::Pin { gfn: self.beyond() },
            17 => Control::Unpin { gfn: self.beyond() },
            18..20 => {
                let new = [self.gfn(), self.beyond(), self.beyond(), Gfn::INVALID];
                let old = if self.dice.one_in(8) { self.beyond() } else { first };
                Control::ChangeGfn { view, old, new: self.dice.pick(&new) }
            }
            _ => Control::SwitchVcpuView { vcpu: self.vcpu(), view },
        }
    }

    /// Where a frame beyond RAM may be, or cannot.
    fn beyond(&mut self) -> Gfn {
        let count = self.reference.frames.len() as u64;
        Gfn(self.dice.pick(&[count, count, count + 1, count + 2, count - 1, 1 << 26]))
    }

    fn enable_some(&mut self, ring: Ring) {
        let slots = self.dice.pick(&[1, 1, 2, 2, 4, 8, 0, 3]);
        self.enable(ring, slots);
    }

    fn find_unpopulated(&mut self) {
        let (first, count) = (self.gfn(), self.dice.below(4));
        let _ = self.step(&Input::Unpopulated { first, count });
    }

    fn share(&mut self) {
        let frames = [self.gfn(), self.gfn()];
        let handles = frames.map(|gfn| match self.step(&Input::Control(Control::NominateShare { gfn })) {
            Outcome::Value(handle) => handle,
            _ => 0,
        });
        let control = Control::Share {
            source: frames[0],
            source_handle: handles[0],
            client: frames[1],
            client_handle: handles[1],
        };
        let _ = self.step(&Input::Control(control));
    }

    fn enable(&mut self, ring: Ring, slots: u32) {
        let page = RingPage::heap();
        page.init();
        let was_due = self.reference.channels[ring.index()].due.len();
        let enable = Input::Control(Control::Enable { ring, layout: Layout::Flags32, slots });
        let outcome = self.step_with(&enable, With::page(&page));
        if outcome != Outcome::Proceed {
            return;
        }
        let consumer = &mut self.consumers[ring.index()];
        assert_eq!(consumer.expected.len(), was_due);
        consumer.back = Back::new(page, ring, Layout::Flags32, slots).ok();
    }

    /// Everybody is served; then nobody sleeps and nothing is held.
    fn close(&mut self) {
        if self.reference.dead {
            assert!(self.reference.vcpus.iter().all(|it| it.wait == Wait::Runs));
            return;
        }
        for ring in Ring::ALL {
            let _ = self.step(&Input::Control(Control::SetNoConsumer { ring, policy: NoConsumer::Wait }));
            let _ = self.step(&Input::ConsumerLost { ring });
            self.enable(ring, 0);
        }
        for kind in CpuEventKind::ALL {
            let mode = MonitorMode::Disabled;
            let _ = self.step(&Input::Control(Control::Monitor { kind, mode, on_change_only: false }));
        }
        let count = self.reference.frames.len() as u64;
        let access = AccessType::Rwx;
        let _ = self.step(&Input::Control(Control::SetAccess { first: Gfn(0), count, access }));
        let _ = self.step(&Input::Control(Control::SetDefaultAccess { access }));
        let _ = self.step(&Input::Control(Control::SetViews { on: false }));
        let _ = self.step(&Input::Control(Control::SetBudget { frames: u64::MAX }));
        for round in 0.. {
            let busy = self.serve();
            if !busy {
                break;
            }
            assert!(round < 100, "{}: they are not served in {round} rounds", self.name);
        }
        for ring in Ring::ALL {
            assert_eq!(self.domain.free_slots(ring), 64, "{}: slots of the {ring} ring leak", self.name);
        }
    }

    fn serve(&mut self) -> bool {
        let mut busy = false;
        for ring in Ring::ALL {
            self.take(ring);
            for request in std::mem::take(&mut self.consumers[ring.index()].inbox) {
                busy = true;
                if ring == Ring::Paging {
                    let _ = self.step(&Input::Control(Control::Prep {
                        gfn: request.frame().expect("a paging request has a frame"),
                        buffer: true,
                    }));
                }
                self.post(ring, request.answer());
            }
            let _ = self.step(&Input::Kick { ring });
        }
        for vcpu in 0..self.last.len() {
            if let Some(input) = self.last[vcpu].clone() {
                busy = true;
                if !matches!(self.step(&input), Outcome::Wait(_)) {
                    self.last[vcpu] = None;
                }
            }
        }
        for gfn in 0..self.reference.frames.len() as u64 {
            let source = AccessSource::Instruction;
            let access = Access { gfn: Gfn(gfn), offset: 0, gla: None, rights: Rights::RW, source, rip: 0 };
            busy |= matches!(self.step(&Input::Foreign { access }), Outcome::Retry(_));
        }
        busy || self.reference.vcpus.iter().any(|it| it.wait != Wait::Runs)
    }
}

impl Reference {
    /// Whether this foreign access would proceed, or at least be asked for, if it came now.
    fn foreign_could_go_on(&self, access: &Access) -> bool {
        let mut copy = self.clone();
        copy.effects.clear();
        let due = |it: &Reference| [Ring::Paging, Ring::Access].map(|ring| it.channels[ring.index()].due.len());
        let before = due(&copy);
        let outcome = copy.step(&Input::Foreign { access: *access }, &[], false);
        outcome == Outcome::Proceed || due(&copy) != before
    }
}

fn alike(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (Outcome::Refused(one, _), Outcome::Refused(other, _)) => one == other,
        _ => one == other,
    }
}

/// An effect without what the reference does not know: slots, sentences, what a response echoes.
fn plain(effect: &Effect) -> Effect {
    match effect {
        Effect::Requested { ring, request, .. } => Effect::Requested { ring: *ring, slot: 0, request: *request },
        Effect::Answered { ring, response, .. } => Effect::Answered {
            ring: *ring,
            slot: 0,
            response: Response { about: About::Other(response.subject()), ..*response },
        },
        Effect::Broken(ring, _) => Effect::Broken(*ring, String::new()),
        Effect::Crash(_) => Effect::Crash(String::new()),
        other => other.clone(),
    }
}

fn play(seed: u64) -> u64 {
    let mut game = Game::new(seed);
    game.play(GAME);
    game.close();
    assert!(game.reference.frames.iter().all(|frame| frame.kind != P2mType::MmioDm));
    game.steps
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let digits = text.replace('_', "");
    digits.strip_prefix("0x").map_or_else(|| digits.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

#[test]
fn random_games_agree_with_the_reference() {
    if let Some(seed) = number("MEM_EVENT_SEED") {
        println!("{} steps", play(seed));
        return;
    }
    let goal = number("MEM_EVENT_STEPS").unwrap_or(if cfg!(debug_assertions) { 200_000 } else { 4_000_000 });
    let start = std::time::Instant::now();
    let (mut steps, mut games) = (0, 0);
    while steps < goal {
        steps += play(0x6d65_6d00_0000_0000 + games);
        games += 1;
    }
    println!("{steps} steps in {games} games, {:.1} s", start.elapsed().as_secs_f64());
}
