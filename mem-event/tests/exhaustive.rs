//! Every interleaving of small systems: from each state that can be reached, everybody can still be served.
//!
//! A system is some vCPUs and a foreign caller with a short program each, a ring of few slots, and a consumer that takes, answers in
//! any order, signals late or not at all, and may die. The search goes through all states, checks every invariant in each, and then
//! goes backwards from where all programs have ended: a state that is not met on that way is one where somebody hangs.

#![allow(clippy::cast_possible_truncation, reason = "the systems are small")]

mod common;

use common::{FRAMES, R, W, config, touch};
use mem_event::{
    Access, AccessType, Back, Control, Domain, DomainState, Effect, Effects, Flags, Gfn, Input, Layout, Outcome,
    Request, Response, Ring, RingPage, VcpuId, With,
};
use std::collections::{HashMap, VecDeque};

/// What a system consists of.
struct System {
    name: &'static str,
    ring: Ring,
    slots: u32,
    /// Steps that bring it to its start.
    before: Vec<Control>,
    /// What is unpopulated at the start.
    unpopulated: u64,
    vcpus: Vec<Vec<Access>>,
    foreign: Vec<Access>,
    /// What the consumer does before it answers a request.
    help: fn(&Request) -> Option<Control>,
    deaths: u8,
    drains: u8,
    /// What the pager takes out besides, once each.
    evictions: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Vcpu(usize),
    Foreign,
    Take,
    Answer(usize),
    Kick,
    Die,
    Attach,
    Drain,
    Evict,
}

/// The part of a state that is not the engine's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Outside {
    at: Vec<usize>,
    foreign_at: usize,
    unread: VecDeque<Request>,
    inbox: Vec<Request>,
    posted: Vec<Response>,
    attached: bool,
    deaths: u8,
    drains: u8,
    evicted: usize,
}

struct World<'a> {
    system: &'a System,
    domain: Domain,
    back: Option<Back>,
    outside: Outside,
    effects: Effects,
}

impl World<'_> {
    fn new(system: &System) -> World<'_> {
        let domain = Domain::new(config(system.vcpus.len() as u32)).expect("a good config");
        let outside = Outside { at: vec![0; system.vcpus.len()], ..Outside::default() };
        let mut world = World { system, domain, back: None, outside, effects: Effects::default() };
        world.attach();
        for control in &system.before {
            assert_eq!(world.step(&Input::Control(control.clone())), Outcome::Proceed);
        }
        let _ = world.step(&Input::Unpopulated { first: Gfn(0), count: system.unpopulated });
        world
    }

    fn step(&mut self, input: &Input) -> Outcome {
        self.step_with(input, With::NOTHING)
    }

    fn step_with(&mut self, input: &Input, with: With<'_>) -> Outcome {
        self.effects.clear();
        let outcome = self.domain.apply(input, with, &mut self.effects);
        let mut answered = 0;
        for effect in &self.effects.list {
            match effect {
                Effect::Requested { request, .. } => self.outside.unread.push_back(*request),
                Effect::Answered { .. } => answered += 1,
                Effect::Closed(_) => self.outside.attached = false,
                Effect::Crash(why) => panic!("{}: the domain crashed: {why}", self.system.name),
                _ => {}
            }
        }
        self.outside.posted.drain(..answered);
        if !self.outside.attached {
            self.back = None;
            self.outside.unread.clear();
            self.outside.inbox.clear();
            self.outside.posted.clear();
        }
        outcome
    }

    fn attach(&mut self) {
        let System { ring, slots, .. } = *self.system;
        let page = RingPage::heap();
        self.back = Back::init(page.clone(), ring, Layout::Flags32, slots).ok();
        self.outside.attached = true;
        let enable = Input::Control(Control::Enable { ring, layout: Layout::Flags32, slots });
        let outcome = self.step_with(&enable, With::page(&page));
        assert_eq!(outcome, Outcome::Proceed, "{}: the consumer cannot attach", self.system.name);
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (vcpu, program) in self.system.vcpus.iter().enumerate() {
            if self.outside.at[vcpu] < program.len() && self.domain.waiting(VcpuId(vcpu as u32)).is_none() {
                actions.push(Action::Vcpu(vcpu));
            }
        }
        if self.outside.foreign_at < self.system.foreign.len() {
            actions.push(Action::Foreign);
        }
        if self.outside.attached {
            let outside = &self.outside;
            actions.extend((!outside.unread.is_empty()).then_some(Action::Take));
            actions.extend((0..outside.inbox.len()).map(Action::Answer));
            actions.push(Action::Kick);
            actions.extend((outside.deaths < self.system.deaths).then_some(Action::Die));
            actions.extend((outside.drains < self.system.drains).then_some(Action::Drain));
            actions.extend((outside.evicted < self.system.evictions.len()).then_some(Action::Evict));
        } else {
            actions.push(Action::Attach);
        }
        actions
    }

    fn act(&mut self, action: Action) {
        let ring = self.system.ring;
        match action {
            Action::Vcpu(vcpu) => {
                let access = self.system.vcpus[vcpu][self.outside.at[vcpu]];
                if self.step(&Input::Access { vcpu: VcpuId(vcpu as u32), access }) == Outcome::Proceed {
                    self.outside.at[vcpu] += 1;
                }
            }
            Action::Foreign => {
                let access = self.system.foreign[self.outside.foreign_at];
                if self.step(&Input::Foreign { access }) == Outcome::Proceed {
                    self.outside.foreign_at += 1;
                }
            }
            Action::Take => {
                let taken = self.back.as_mut().and_then(|back| back.take().expect("a good request"));
                assert_eq!(taken, self.outside.unread.pop_front(), "{}: the wrong request came", self.system.name);
                self.outside.inbox.extend(taken);
            }
            Action::Answer(at) => {
                let request = self.outside.inbox.remove(at);
                if let Some(control) = (self.system.help)(&request) {
                    let _ = self.step(&Input::Control(control));
                }
                if let Some(back) = &mut self.back {
                    back.answer(&request.answer());
                    self.outside.posted.push(request.answer());
                }
            }
            Action::Kick => drop(self.step(&Input::Kick { ring })),
            Action::Die => {
                self.outside.deaths += 1;
                let outcome = self.step(&Input::ConsumerLost { ring });
                assert_eq!(outcome, Outcome::Proceed);
                self.outside.attached = false;
                self.back = None;
                self.outside.unread.clear();
                self.outside.inbox.clear();
                self.outside.posted.clear();
            }
            Action::Attach => self.attach(),
            Action::Drain => {
                self.outside.drains += 1;
                let outcome = self.step(&Input::Control(Control::Disable { ring, drain: true }));
                assert_eq!(outcome, Outcome::Proceed);
            }
            Action::Evict => {
                let gfn = Gfn(self.system.evictions[self.outside.evicted]);
                self.outside.evicted += 1;
                let _ = self.step(&Input::Control(Control::Nominate { gfn }));
                let _ = self.step(&Input::Control(Control::Evict { gfn }));
            }
        }
    }

    fn is_done(&self) -> bool {
        let ended = self.system.vcpus.iter().zip(&self.outside.at).all(|(program, at)| program.len() == *at);
        let waits = (0..self.system.vcpus.len()).any(|vcpu| self.domain.waiting(VcpuId(vcpu as u32)).is_some());
        ended && !waits && self.outside.foreign_at == self.system.foreign.len()
    }

    fn check(&self) -> Result<(), String> {
        self.domain.check_invariants()?;
        let outside = &self.outside;
        let out = outside.unread.iter().chain(&outside.inbox);
        let mut paused: Vec<u32> =
            out.filter(|request| request.flags.contains(Flags::VCPU_PAUSED)).map(|request| request.vcpu.0).collect();
        paused.sort_unstable();
        let all = paused.len();
        paused.dedup();
        if paused.len() < all { Err("a vCPU has two events out at once".to_string()) } else { Ok(()) }
    }
}

type Key = (DomainState, Outside);

/// Visits every state. Returns how many there are.
fn explore(system: &System) -> usize {
    let replay = |path: &[Action]| {
        let mut world = World::new(system);
        path.iter().for_each(|action| world.act(*action));
        world
    };
    let mut ids: HashMap<Key, usize> = HashMap::new();
    let mut came: Vec<Option<(usize, Action)>> = vec![None];
    let (mut leads_to, mut done): (Vec<(usize, usize)>, Vec<usize>) = (Vec::new(), Vec::new());
    let start = World::new(system);
    ids.insert((start.domain.state(), start.outside.clone()), 0);
    let path_to = |came: &[Option<(usize, Action)>], mut id: usize| {
        let mut path = Vec::new();
        while let Some((before, action)) = came[id] {
            path.push(action);
            id = before;
        }
        path.reverse();
        path
    };
    let mut next = 0;
    while next < came.len() {
        let path = path_to(&came, next);
        let here = replay(&path);
        if let Err(sentence) = here.check() {
            panic!("{}: {sentence}\nafter {path:?}", system.name);
        }
        if here.is_done() {
            done.push(next);
        }
        for action in here.actions() {
            let mut there = replay(&path);
            there.act(action);
            let fresh = ids.len();
            let id = *ids.entry((there.domain.state(), there.outside)).or_insert(fresh);
            if id == fresh {
                came.push(Some((next, action)));
            }
            leads_to.push((id, next));
        }
        next += 1;
    }
    leads_to.sort_unstable();
    let mut can_end = vec![false; came.len()];
    let mut work = done;
    while let Some(id) = work.pop() {
        if std::mem::replace(&mut can_end[id], true) {
            continue;
        }
        let from = leads_to.partition_point(|(to, _)| *to < id);
        work.extend(leads_to[from..].iter().take_while(|(to, _)| *to == id).map(|(_, before)| *before));
    }
    if let Some(stuck) = can_end.iter().position(|can| !can) {
        panic!("{}: somebody hangs for ever\nafter {:?}", system.name, path_to(&came, stuck));
    }
    came.len()
}

fn run(system: &System) {
    let start = std::time::Instant::now();
    let states = explore(system);
    println!("{}: {states} states, {:.1} s", system.name, start.elapsed().as_secs_f64());
}

fn load(request: &Request) -> Option<Control> {
    Some(Control::Prep { gfn: request.frame()?, buffer: true })
}

fn out(gfns: &[u64]) -> Vec<Control> {
    let both = |gfn: &u64| [Control::Nominate { gfn: Gfn(*gfn) }, Control::Evict { gfn: Gfn(*gfn) }];
    gfns.iter().flat_map(both).collect()
}

fn paging(name: &'static str, slots: u32) -> System {
    System {
        name,
        ring: Ring::Paging,
        slots,
        before: out(&[0, 1]),
        unpopulated: 0,
        vcpus: vec![vec![touch(0, R), touch(1, W)], vec![touch(1, R), touch(0, W)]],
        foreign: vec![touch(0, W)],
        help: load,
        deaths: 0,
        drains: 0,
        evictions: Vec::new(),
    }
}

#[test]
fn two_vcpus_and_a_foreign_caller_on_two_paged_frames_with_two_slots() {
    run(&paging("two slots", 2));
}

#[test]
fn two_vcpus_and_a_foreign_caller_on_two_paged_frames_with_one_slot() {
    run(&paging("one slot", 1));
}

#[test]
fn a_pager_that_may_die_at_any_moment() {
    run(&System { deaths: 1, ..paging("a pager that may die", 2) });
    run(&System { deaths: 2, ..paging("a pager that may die twice, one slot", 1) });
}

#[test]
fn a_pager_that_may_be_disabled_at_any_moment() {
    run(&System { drains: 1, ..paging("a ring that may be drained", 2) });
}

#[test]
fn a_pager_that_evicts_while_frames_are_touched() {
    run(&System { evictions: vec![0, 1], before: out(&[0]), ..paging("a pager that evicts", 2) });
}

#[test]
fn a_listener_that_may_die_with_sync_and_async_events() {
    fn allow(request: &Request) -> Option<Control> {
        Some(Control::SetAccess { first: request.frame()?, count: 1, access: AccessType::Rwx })
    }
    let watch = |gfn, access| Control::SetAccess { first: Gfn(gfn), count: 1, access };
    for slots in [1, 2] {
        run(&System {
            ring: Ring::Access,
            before: vec![watch(0, AccessType::N), watch(1, AccessType::N2rwx)],
            vcpus: vec![vec![touch(0, R), touch(1, W)], vec![touch(1, R), touch(0, W)], vec![touch(0, W)]],
            foreign: Vec::new(),
            help: allow,
            deaths: 1,
            ..paging("a listener that may die", slots)
        });
        // A device that comes for the same frames.
        run(&System {
            ring: Ring::Access,
            before: vec![watch(0, AccessType::N), watch(1, AccessType::N2rwx)],
            vcpus: vec![vec![touch(0, R), touch(1, W)], vec![touch(0, W)]],
            foreign: vec![touch(0, W), touch(1, R)],
            help: allow,
            deaths: 1,
            drains: 1,
            ..paging("a listener that may die or leave, and a device", slots)
        });
    }
}

#[test]
fn a_helper_that_may_die_with_less_memory_than_is_touched() {
    fn raise(_: &Request) -> Option<Control> {
        Some(Control::SetBudget { frames: FRAMES })
    }
    for slots in [1, 2] {
        run(&System {
            ring: Ring::Sharing,
            before: vec![Control::SetBudget { frames: FRAMES - 1 }],
            unpopulated: 2,
            vcpus: vec![vec![touch(0, W)], vec![touch(1, W), touch(0, R)]],
            foreign: vec![touch(1, W)],
            help: raise,
            deaths: 1,
            ..paging("a helper that may die", slots)
        });
    }
}

#[test]
fn three_vcpus_with_all_that_can_happen() {
    // All of it at once only where it is fast: 29,486 states, 26 s in a build without optimisation.
    let most = u8::from(!cfg!(debug_assertions));
    run(&System {
        before: out(&[0]),
        vcpus: vec![vec![touch(0, R), touch(1, W)], vec![touch(1, R)], vec![touch(0, W)]],
        deaths: most,
        drains: most,
        evictions: vec![1],
        ..paging("three vCPUs", 2)
    });
}
