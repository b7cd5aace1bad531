//! Any step of a trace can be reached, with the engine as it was, and damage never makes a wrong step of it.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use mem_event::trace::{Context, Failure, Header, Player, PlayerError, Reader, Step, Tape, Why, Writer, replay};
use mem_event::{
    Access, AccessSource, AccessType, Back, Checkpoint, Control, Domain, DomainConfig, Effects, Gfn, Input, Layout,
    Rights, Ring, RingPage, VcpuId, With,
};
use std::io::Cursor;

const STATES: u64 = 40;

fn header() -> Header {
    Header::of("player", DomainConfig::new(3, vec![(Gfn(0), 32), (Gfn(40), 24)]))
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn input(random: &mut Random) -> Input {
    let gfn = Gfn(random.below(64));
    let rings = [Ring::Paging, Ring::Access, Ring::Sharing];
    let ring = rings[random.below(3) as usize];
    match random.below(14) {
        0..=5 => {
            let rights = Rights::from_bits(1 + random.below(7) as u8);
            let source = AccessSource::Instruction;
            let access = Access { gfn, offset: 8, gla: None, rights, source, rip: 0x1000 };
            Input::Access { vcpu: VcpuId(random.below(3) as u32), access }
        }
        6 => Input::Control(Control::SetAccess { first: gfn, count: 2, access: AccessType::Rx }),
        7 => Input::Control(Control::Nominate { gfn }),
        8 => Input::Control(Control::Evict { gfn }),
        9 => Input::Control(Control::Prep { gfn, buffer: true }),
        10 if random.below(8) == 0 => Input::ConsumerLost { ring },
        10 if random.below(8) == 0 => Input::Control(Control::Disable { ring, drain: true }),
        _ => Input::Kick { ring },
    }
}

/// A run of so many steps; its trace, and the state before each step and after the last one.
fn record(count: u64) -> (Vec<u8>, Vec<Checkpoint>) {
    let (mut file, mut states) = (Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    writer.put_states_every(STATES);
    let mut domain = Domain::new(header().config).unwrap();
    let mut backs: [Option<Back>; 3] = [None, None, None];
    let (mut random, mut effects) = (Random(7), Effects::default());
    for number in 0..count {
        states.push(domain.checkpoint());
        let absent = Ring::ALL.into_iter().find(|ring| domain.ring(*ring).counters.is_none());
        let page = RingPage::heap();
        let next = match absent {
            Some(ring) if number % 5 == 0 => {
                let slots = 4;
                backs[ring.index()] = Some(Back::init(page.clone(), ring, Layout::Flags32, slots).unwrap());
                Input::Control(Control::Enable { ring, layout: Layout::Flags32, slots })
            }
            _ => input(&mut random),
        };
        if let Input::Kick { ring } = next
            && let Some(back) = &mut backs[ring.index()]
            && domain.ring(ring).counters.is_some()
        {
            while random.below(3) > 0
                && let Ok(Some(request)) = back.take()
            {
                back.answer(&request.answer());
            }
        }
        effects.clear();
        let outcome = domain.apply(&next, With::page(&page), &mut effects);
        writer.record(Context { time: 500 * number, ..Context::default() }, &next, &outcome, &effects);
        if number % 9 == 8 {
            writer.flush();
        }
        if writer.wants_state() {
            writer.keep(&domain);
        }
    }
    states.push(domain.checkpoint());
    writer.finish().unwrap();
    (file, states)
}

fn steps(file: &[u8]) -> Vec<Step> {
    Reader::new(file).unwrap().map_while(Result::ok).collect()
}

fn tape(file: &[u8]) -> Tape<Cursor<&[u8]>> {
    Tape::new(Cursor::new(file)).unwrap()
}

#[test]
fn every_step_is_found_with_and_without_an_index() {
    let (file, _) = record(400);
    let all = steps(&file);
    assert_eq!(all.len(), 400);
    let without = &file[..file.len() - 1];
    for file in [&file[..], without] {
        let mut tape = tape(file);
        assert_eq!(tape.len(), 400);
        for number in (1..=400).rev().chain(1..=400).chain([7, 300, 8, 400, 1]) {
            assert_eq!(tape.step(number).unwrap(), &all[number as usize - 1], "step {number}");
        }
        assert!(tape.step(0).is_err() && tape.step(401).is_err());
        assert_eq!((tape.step_at(0), tape.step_at(500 * 77), tape.step_at(500 * 77 + 1)), (Ok(1), Ok(78), Ok(79)));
        assert_eq!(tape.step_at(u64::MAX), Ok(401));
    }
    assert_eq!(tape(&file).end().why, Why::Finished);
    assert!(matches!(tape(without).end().why, Why::Cut(_)), "{}", tape(without).end());
}

#[test]
fn a_seek_anywhere_finds_the_engine_as_it_was() {
    let (file, states) = record(400);
    let mut player = Player::new(tape(&file)).unwrap();
    assert!(player.tape().index().states.len() >= 9);
    let mut random = Random(3);
    for _ in 0..300 {
        let number = random.below(401);
        player.seek(number).unwrap();
        assert_eq!(player.number(), number);
        assert_eq!(player.domain().checkpoint(), states[number as usize], "after step {number}");
    }
    player.seek(0).unwrap();
    let mut forward = 0;
    while let Some(step) = player.forward().unwrap() {
        forward += 1;
        assert_eq!(step.time, 500 * (forward - 1));
        assert_eq!(player.domain().checkpoint(), states[forward as usize]);
    }
    assert_eq!(forward, 400);
    assert!(matches!(player.seek(401), Err(PlayerError::End(_))));
}

#[test]
fn what_rests_on_a_ring_shows_in_the_engine_that_was_sought() {
    let (file, _) = record(200);
    let mut player = Player::new(tape(&file)).unwrap();
    for number in (0..=200).rev() {
        player.seek(number).unwrap();
        let domain = player.domain();
        for ring in Ring::ALL {
            let view = domain.ring(ring);
            let held = view.outstanding.len() as u32 + view.granted;
            assert_eq!(view.free + held, view.slots, "{ring} after step {number}");
            assert_eq!(view.counters.is_some(), domain.ring_page(ring).is_some());
        }
        for vcpu in 0..3 {
            let view = domain.vcpu_view(VcpuId(vcpu)).unwrap();
            assert_eq!(view.wait, domain.waiting(VcpuId(vcpu)));
            assert!(view.stopped_on.is_none() || view.wait.is_some());
        }
    }
    assert!(player.domain().vcpu_view(VcpuId(3)).is_none());
}

#[test]
fn a_replay_compares_the_states() {
    let (file, _) = record(400);
    let mut engine = Domain::new(header().config).unwrap();
    let summary = replay(Reader::new(file.as_slice()).unwrap(), &mut engine, |_, _| ()).unwrap();
    assert_eq!((summary.steps, summary.end.why), (400, Why::Finished));
    assert!(summary.states >= 9, "{}", summary.states);

    let (mut file, mut domain) = (Vec::new(), Domain::new(header().config).unwrap());
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    let (input, mut effects) = (Input::Control(Control::SetBudget { frames: 100 }), Effects::default());
    let outcome = domain.apply(&input, With::NOTHING, &mut effects);
    writer.record(Context::default(), &input, &outcome, &effects);
    writer.keep(&Domain::new(header().config).unwrap());
    writer.finish().unwrap();
    let mut engine = Domain::new(header().config).unwrap();
    let failure = replay(Reader::new(file.as_slice()).unwrap(), &mut engine, |_, _| ()).unwrap_err();
    let Failure::State { step: 1, recorded, now } = failure else { panic!("{failure}") };
    assert_ne!(recorded, now);
}

#[test]
fn an_engine_that_differs_stops_the_player_and_the_steps_before_are_still_there() {
    let (mut file, mut domain) = (Vec::new(), Domain::new(header().config).unwrap());
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    let budget = |frames| Input::Control(Control::SetBudget { frames });
    let mut effects = Effects::default();
    for number in 1..=10 {
        effects.clear();
        let outcome = domain.apply(&budget(number), With::NOTHING, &mut effects);
        if number == 6 {
            effects.list.push(mem_event::Effect::RetryForeign);
        }
        writer.record(Context::default(), &budget(number), &outcome, &effects);
    }
    writer.finish().unwrap();
    let mut player = Player::new(tape(&file)).unwrap();
    for _ in 0..2 {
        let Err(PlayerError::Failure(failure)) = player.seek(10) else { panic!("the difference is not seen") };
        assert_eq!((failure.step(), player.number()), (6, 5));
        assert!(matches!(player.forward(), Err(PlayerError::Failure(_))), "it is met again");
        player.seek(3).unwrap();
        assert_eq!(player.forward().unwrap().unwrap().input, budget(4));
    }
}

/// Every step and every state that can be had of these bytes is one of the whole trace.
fn is_never_wrong(bytes: &[u8], all: &[Step], states: &[Checkpoint], what: &str) -> bool {
    let Ok(tape) = Tape::new(Cursor::new(bytes)) else { return false };
    let Ok(mut player) = Player::new(tape) else { return false };
    let mut whole = player.len() == all.len() as u64;
    for number in [1, all.len() as u64, all.len() as u64 / 2, 3] {
        match player.tape().step(number) {
            Ok(step) => assert_eq!(step, &all[number as usize - 1], "{what}: step {number}"),
            Err(_) => whole = false,
        }
        match player.seek(number) {
            Ok(()) => assert_eq!(player.domain().checkpoint(), states[number as usize], "{what}: after step {number}"),
            Err(PlayerError::Failure(failure)) => panic!("{what}: {failure}"),
            Err(_) => whole = false,
        }
    }
    whole
}

#[test]
fn a_trace_with_any_byte_changed_shows_no_wrong_step_and_no_wrong_state() {
    let (file, states) = record(90);
    let all = steps(&file);
    let mut bytes = file.clone();
    for at in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            bytes[at] ^= change;
            is_never_wrong(&bytes, &all, &states, &format!("byte {at} changed by {change:#x}"));
            bytes[at] ^= change;
        }
    }
    assert!(is_never_wrong(&bytes, &all, &states, "nothing changed"));
}

#[test]
fn a_trace_cut_anywhere_shows_the_steps_before_the_cut() {
    let (file, states) = record(90);
    let all = steps(&file);
    let mut readable = 0;
    for length in 0..file.len() {
        is_never_wrong(&file[..length], &all, &states, &format!("cut at {length}"));
        let steps = Tape::new(Cursor::new(&file[..length])).map_or(0, |tape| tape.len());
        assert!(steps >= readable, "cut at {length}: a longer part shows fewer steps");
        readable = steps;
    }
    assert_eq!(readable, 90, "all that is lost at last is the index");
}

#[test]
fn a_state_that_cannot_be_read_costs_time_and_nothing_else() {
    let (file, states) = record(200);
    let mut bytes = file.clone();
    for state in &tape(&file).index().states {
        bytes[state.offset as usize + 12] ^= 1;
    }
    let mut player = Player::new(tape(&bytes)).unwrap();
    for number in [39, 200, 150] {
        player.seek(number).unwrap();
        assert_eq!(player.domain().checkpoint(), states[number as usize]);
    }
    assert_eq!(player.tape().step(200).unwrap(), &steps(&file)[199]);
}
