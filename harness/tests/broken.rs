//! An engine that is broken on purpose: `replay` finds the difference, `minimise` makes it short.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "what a test unwraps is part of what it asserts, and numbers are cut on purpose"
)]

use harness::guest::symbols::Symbols;
use harness::trace::difference::{Recent, report};
use harness::trace::minimise::rust_test::as_test;
use harness::trace::minimise::search::{Minimal, Shown, Subject, of_failure};
use mem_event::trace::{Context, Engine, Failure, Header, Reader, RecordedConsumers, Tape, Writer, replay};
use mem_event::{
    Access, AccessSource, AccessType, Back, Checkpoint, Control, Domain, DomainConfig, Effect, Effects, Gfn, Input,
    Layout, Outcome, Rights, Ring, RingPage, VcpuId, With,
};
use std::io::Cursor;

const VCPUS: u32 = 6;

/// What is broken in it.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Of two vCPUs that a kick wakes, the second sleeps on.
    ForgetsTheSecondWake,
    /// A frame that comes back from the pager is not mapped.
    ForgetsToMap,
    /// A vCPU that was handed the slot for which nobody else waits sleeps on.
    LastWaiterSleepsOn,
}

struct Broken(Domain, Fault);

impl Engine for Broken {
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome {
        let outcome = self.0.apply(input, with, effects);
        let is_last_waiter = |vcpu| {
            let slot = self.0.vcpu_view(vcpu).and_then(|view| view.slot);
            slot.is_some_and(|ring| self.0.ring(ring).queue.is_empty())
        };
        let is_forgotten = |effect: &Effect| match (self.1, effect) {
            (Fault::ForgetsTheSecondWake, Effect::Wake(_)) | (Fault::ForgetsToMap, Effect::Map(_)) => true,
            (Fault::LastWaiterSleepsOn, Effect::Wake(vcpu)) => is_last_waiter(*vcpu),
            _ => false,
        };
        let least = if self.1 == Fault::ForgetsTheSecondWake { 1 } else { 0 };
        let mut hits = effects.list.iter().enumerate().filter(|(_, effect)| is_forgotten(effect)).map(|(at, _)| at);
        if let (Input::Kick { .. }, Some(at)) = (input, hits.nth(least)) {
            effects.list.remove(at);
        }
        outcome
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Some(self.0.checkpoint())
    }
}

impl Subject for Broken {
    fn domain(&self) -> &Domain {
        &self.0
    }
}

fn header() -> Header {
    Header::of("broken", DomainConfig::new(VCPUS, vec![(Gfn(0), 256)]))
}

/// A run of an engine that is right: two rings, vCPUs that touch, a consumer that answers now and then, a pager that pages.
fn record(steps: u64, slots: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    let mut domain = Domain::new(header().config).unwrap();
    let mut backs: [Option<Back>; 3] = [None, None, None];
    let (mut state, mut effects) = (11_u64, Effects::default());
    let mut below = |end: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % end
    };
    for number in 0..steps {
        let page = RingPage::heap();
        let gfn = Gfn(below(256));
        let ring = [Ring::Paging, Ring::Access][below(2) as usize];
        let vcpu = VcpuId(below(u64::from(VCPUS)) as u32);
        let input = match (number, below(12)) {
            (0 | 1, _) => {
                let ring = [Ring::Paging, Ring::Access][number as usize];
                backs[ring.index()] = Some(Back::init(page.clone(), ring, Layout::Flags32, slots).unwrap());
                Input::Control(Control::Enable { ring, layout: Layout::Flags32, slots })
            }
            (2, _) => Input::Control(Control::SetAccess { first: Gfn(0), count: 100, access: AccessType::Rx }),
            (_, 0..=5) => {
                let (source, rights) = (AccessSource::Instruction, Rights::W);
                let access = Access { gfn, offset: 0, gla: None, rights, source, rip: 0x1000 };
                Input::Access { vcpu, access }
            }
            (_, 6) => Input::Control(Control::Nominate { gfn }),
            (_, 7) => Input::Control(Control::Evict { gfn }),
            (_, 8) => Input::Control(Control::Prep { gfn, buffer: true }),
            _ => Input::Kick { ring },
        };
        if let (Input::Kick { ring }, 0) = (&input, below(3))
            && let Some(back) = &mut backs[ring.index()]
        {
            while let Ok(Some(request)) = back.take() {
                back.answer(&request.answer());
            }
        }
        effects.clear();
        let outcome = domain.apply(&input, With::page(&page), &mut effects);
        writer.record(Context { time: number, ..Context::default() }, &input, &outcome, &effects);
    }
    writer.finish().unwrap();
    file
}

fn found(fault: Fault, slots: u32) -> (Minimal, Box<harness::trace::minimise::search::Differs>, String) {
    let file = record(3000, slots);
    let fresh = || Domain::new(header().config).map(|domain| Broken(domain, fault));
    let mut recent = Recent::default();
    let reader = Reader::new(file.as_slice()).unwrap();
    let failure = replay(reader, &mut fresh().unwrap(), |number, step| recent.step(number, step)).unwrap_err();
    let said = report(&failure, &recent, &Symbols::default());
    assert!(matches!(failure, Failure::Difference(_)), "{said}");
    println!("{said}");
    let mut tape = Tape::new(Cursor::new(file.as_slice())).unwrap();
    let minimal = of_failure(&mut tape, Some(&failure), &fresh).unwrap().expect("a sequence that shows it");
    println!("{}", as_test(&header(), &minimal));
    let Shown::Difference(differs) = minimal.shown.clone() else { panic!("{minimal:?}") };
    (minimal, differs, said)
}

#[test]
fn a_wake_that_is_forgotten_is_found_and_shown_with_at_most_20_inputs() {
    let (minimal, differs, said) = found(Fault::ForgetsTheSecondWake, 8);
    assert!(said.contains("- effect  wake vcpu") && said.contains("the steps before it"), "{said}");
    let [Effect::Wake(_)] = differs.missing[..] else { panic!("{differs:?}") };
    assert!(minimal.inputs.len() <= 20 && minimal.inputs.len() as u64 <= minimal.step, "{minimal:?}");
    a_right_engine_does_what_is_missing(&minimal, &differs.missing);
}

#[test]
fn a_frame_that_is_not_mapped_is_found_and_shown_with_at_most_20_inputs() {
    let (minimal, differs, said) = found(Fault::ForgetsToMap, 8);
    assert!(said.contains("- effect  map 0x"), "{said}");
    let [Effect::Map(_)] = differs.missing[..] else { panic!("{differs:?}") };
    assert!(minimal.inputs.len() <= 20, "{minimal:?}");
    a_right_engine_does_what_is_missing(&minimal, &differs.missing);
    let test = as_test(&header(), &minimal);
    assert!(test.contains("Input::Control(Control::Enable { ring: Ring::Paging"), "{test}");
    assert!(test.contains("assert!(said.contains(\"Map(Gfn("), "{test}");
}

/// A kick without an answer lacks the wake as well: what was left was once a kick that took nothing.
#[test]
fn a_waiter_that_sleeps_on_with_its_slot_is_shown_by_an_answer_that_frees_one() {
    let (minimal, differs, _) = found(Fault::LastWaiterSleepsOn, 2);
    let [Effect::Wake(_)] = differs.missing[..] else { panic!("{differs:?}") };
    assert!(minimal.inputs.len() <= 20, "{minimal:?}");
    a_right_engine_does_what_is_missing(&minimal, &differs.missing);
}

/// What was left out did not matter: an engine that is right does with the short sequence what the trace says.
fn a_right_engine_does_what_is_missing(minimal: &Minimal, missing: &[Effect]) {
    let (mut domain, mut consumers) = (Domain::new(header().config).unwrap(), RecordedConsumers::default());
    let mut effects = Effects::default();
    for told in &minimal.inputs {
        effects.clear();
        let _ = consumers.step(&mut domain, &told.input, &told.taken.concat(), &mut effects).unwrap();
    }
    for effect in missing {
        assert!(effects.list.contains(effect), "{:?} lacks {effect:?}", effects.list);
    }
}

#[test]
fn a_trace_of_a_right_engine_shows_nothing() {
    let file = record(300, 8);
    let mut tape = Tape::new(Cursor::new(file.as_slice())).unwrap();
    let fresh = || Domain::new(header().config);
    assert!(of_failure(&mut tape, None, &fresh).unwrap().is_none());
}
