//! Eight vCPUs on a ring of four slots: every event is delivered exactly once, and everybody finishes, 50 times in a row; a slot that
//! comes free is used by the vCPU that it was reserved for.

use crate::support::storm::Storm;
use crate::support::{run, scenario};
use harness::toolstack::transcript::Record;
use mem_event::message::Call;
use mem_event::trace::Reader;
use mem_event::{AccessType, Control, Input, Outcome, Ring};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const RUNS: usize = 50;
const VCPUS: u32 = 8;
/// Each vCPU has that many pages of its own in `STORM`.
const PAGES: usize = 16;

#[test]
fn every_event_is_delivered_exactly_once() {
    for number in 1..=RUNS {
        let (outcome, _) = run(scenario("smp_storm"));
        let events: Vec<(u32, u64)> = outcome
            .records
            .iter()
            .filter_map(|record| match record {
                Record::Event { request, .. } => Some((request.vcpu.0, request.event.subject())),
                Record::Checkpoint { .. } | Record::Act { .. } => None,
            })
            .collect();
        let distinct: HashSet<&(u32, u64)> = events.iter().collect();
        assert_eq!(events.len(), VCPUS as usize * PAGES, "events in run {number}");
        assert_eq!(distinct.len(), events.len(), "an event came twice in run {number}");
        for vcpu in 0..VCPUS {
            let own = events.iter().filter(|(of, _)| *of == vcpu).count();
            assert_eq!(own, PAGES, "events of vCPU {vcpu} in run {number}");
        }
    }
}

/// How long, in milliseconds, everybody waits: several times as long as a vCPU stays in its block.
const LONG: u32 = 20;

/// A vCPU that had left its block while it waited for a slot came back by the fetch of its instruction. That look gave the slot back,
/// so the next vCPU was woken for it, and did the same: eight of them could wake one another for ever.
#[test]
fn a_slot_that_was_set_aside_is_used_by_the_vcpu_that_was_woken_for_it() {
    let mut storm = Storm::traced();
    for _ in 0..10 {
        all_wait_long(&mut storm);
        storm.answer_pending(4);
        // Taken by now: else all would be seen as those who have waited long before they are woken.
        storm.toolstack.values(&Call::Control(Control::Resume { ring: Ring::Access })).unwrap();
    }
    storm.set(AccessType::Rwx);
    // What was put before is answered; what comes after meets open pages.
    while storm.listener.unanswered() > 0 {
        storm.answer_one();
    }
    let folder = storm.ends();
    let steps = Reader::open(folder.file("trace")).unwrap().map(Result::unwrap);
    let opens = |step: &Input| matches!(step, Input::Control(Control::SetAccess { access: AccessType::Rwx, .. }));
    let accesses: Vec<_> = steps
        .take_while(|step| !opens(&step.input))
        .filter(|step| matches!(step.input, Input::Access { .. }))
        .collect();
    assert!(accesses.len() >= 40, "{} accesses", accesses.len());
    // All that is watched is closed, so whoever may go on has looked for something else.
    let others = accesses.iter().find(|step| !matches!(step.outcome, Outcome::Wait(_)));
    assert!(others.is_none(), "{others:?}");
}

/// All vCPUs have waited so long that they left their blocks.
fn all_wait_long(storm: &mut Storm) {
    let until = Instant::now() + Duration::from_secs(60);
    while storm.toolstack.vcpus().unwrap().iter().any(|vcpu| vcpu.waited < LONG) {
        assert!(Instant::now() < until, "{:?}", storm.toolstack.vcpus());
        std::thread::yield_now();
    }
}
