//! `blocked-2012` against what real Xen 4.17.7 showed (dom0 and guests of 2 to 12 vCPUs, rings of 8 slots, recorded): the facts are here, as
//! numbers.

mod common;

use common::course::{Act, Cast, Choice, Course};
use mem_event::flow::{Flow, FlowKind};
use mem_event::{Ring, VcpuId};

const SLOTS: u32 = 8;

fn course(cast: &Cast) -> Course {
    Course::new(Flow::new(FlowKind::Blocked2012, Ring::Access), cast)
}

fn endless(vcpus: u32, act: Act) -> Cast {
    Cast { endless: true, ..Cast::of(SLOTS, vcpus, &[act]) }
}

/// vCPUs run until none can, in the order that `first` prefers; who has put a request, in order.
fn until_quiet(course: &mut Course, cast: &Cast, first: impl Fn(&[u32]) -> u32) -> Vec<u32> {
    let mut puts = Vec::new();
    loop {
        let can: Vec<u32> = course
            .choices(cast)
            .iter()
            .filter_map(|choice| match choice {
                Choice::Run(vcpu) => Some(*vcpu),
                _ => None,
            })
            .collect();
        if can.is_empty() {
            return puts;
        }
        let vcpu = first(&can);
        if course.take(Choice::Run(vcpu), cast).put {
            puts.push(vcpu);
        }
    }
}

fn lowest(can: &[u32]) -> u32 {
    can[0]
}

#[test]
fn at_a_full_ring_two_are_blocked_and_the_rest_queued() {
    // N of the recordings: 2 blocked and N - 2 queued, whatever the order.
    for vcpus in [2, 4, 9, 12] {
        let cast = endless(vcpus, Act::Report);
        let rotating = |can: &[u32]| can[can.len() / 2];
        for order in [lowest as fn(&[u32]) -> u32, rotating] {
            let mut course = course(&cast);
            let puts = until_quiet(&mut course, &cast, order);
            assert_eq!((puts.len(), course.flow.sleepers(&course.stops)), (8, (vcpus - 2, 2)), "{vcpus} vCPUs");
        }
    }
}

#[test]
fn one_vcpu_is_blocked_after_as_many_events_as_recorded() {
    for (vcpus, burst) in [(4, 5), (2, 7)] {
        let cast = endless(vcpus, Act::Report);
        let mut course = course(&cast);
        let mut puts = 0;
        while course.stops.runs(VcpuId(0)) {
            puts += u32::from(course.take(Choice::Run(0), &cast).put);
        }
        assert_eq!(puts, burst, "{vcpus} vCPUs");
    }
}

#[test]
fn of_nine_that_stop_for_their_answer_one_is_queued_and_an_answer_starts_two() {
    let cast = endless(9, Act::Fault);
    let mut course = course(&cast);
    assert_eq!(until_quiet(&mut course, &cast, lowest).len(), 8);
    assert_eq!(course.flow.sleepers(&course.stops), (1, 0), "nobody that its event has paused is blocked");
    course.take(Choice::Answer(0), &cast);
    let started = (0..9).filter(|vcpu| course.stops.runs(VcpuId(*vcpu))).count();
    assert_eq!(started, 2);
    assert_eq!(until_quiet(&mut course, &cast, |can| *can.last().unwrap()).len(), 1, "and makes one new request");
}

#[test]
fn with_slow_answers_the_queue_is_first_in_first_out() {
    // Twelve vCPUs: new request k is that of the vCPU answered k - 4. The woken one runs before the answered one.
    let cast = endless(12, Act::Fault);
    let mut course = course(&cast);
    until_quiet(&mut course, &cast, lowest);
    let (mut answered, mut new) = (Vec::new(), Vec::new());
    for _ in 0..14 {
        let oldest = course.oldest().flatten().unwrap();
        answered.push(oldest.0);
        course.take(Choice::Answer(0), &cast);
        new.extend(until_quiet(&mut course, &cast, |can| {
            *can.iter().find(|vcpu| **vcpu != oldest.0).unwrap_or(&can[0])
        }));
    }
    assert_eq!(new[4..], answered[..10]);
}

#[test]
fn a_queued_vcpu_starves_where_the_answered_one_is_always_faster() {
    // Recorded: 1 of 600 events, a gap of 599, with nine vCPUs and a scheduler that is not fair. Searched for: of schedules that prefer
    // vCPUs in a fixed order, one that shows it.
    let cast = endless(9, Act::Fault);
    let least = |kind: FlowKind, loser: u32| {
        let mut course = Course::new(Flow::new(kind, Ring::Access), &cast);
        let mut counts = [0u32; 9];
        let prefer = |can: &[u32]| *can.iter().find(|vcpu| **vcpu != loser).unwrap_or(&can[0]);
        let mut puts = until_quiet(&mut course, &cast, prefer);
        while counts.iter().sum::<u32>() < 600 {
            puts.drain(..).for_each(|vcpu| counts[vcpu as usize] += 1);
            course.take(Choice::Answer(0), &cast);
            puts = until_quiet(&mut course, &cast, prefer);
        }
        *counts.iter().min().unwrap()
    };
    let starved = (0..9).find(|loser| least(FlowKind::Blocked2012, *loser) <= 1);
    assert_eq!(starved, Some(0), "the schedule in which vCPU 0 is always the last to run");
    assert!(
        (0..9).all(|loser| least(FlowKind::Queue, loser) >= 66),
        "under queue each has its share of 600, a ninth, under all of them"
    );
}

#[test]
fn blocked_vcpus_are_woken_in_strict_rounds() {
    let cast = endless(2, Act::Report);
    let mut course = course(&cast);
    until_quiet(&mut course, &cast, lowest);
    let mut order = Vec::new();
    for _ in 0..12 {
        course.take(Choice::Answer(0), &cast);
        order.extend((0..2).filter(|vcpu| course.stops.runs(VcpuId(*vcpu))));
        until_quiet(&mut course, &cast, lowest);
    }
    assert!(order.windows(2).all(|two| two[0] != two[1]), "{order:?}");
}

#[test]
fn disable_is_busy_with_queued_vcpus_and_not_with_blocked_ones() {
    for (vcpus, busy) in [(2, false), (4, true)] {
        let cast = endless(vcpus, Act::Report);
        let mut course = course(&cast);
        until_quiet(&mut course, &cast, lowest);
        assert_eq!(course.disable().is_err(), busy, "{vcpus} vCPUs");
        if !busy {
            assert!((0..vcpus).all(|vcpu| course.stops.runs(VcpuId(vcpu))), "and all run on");
        }
    }
}

#[test]
fn a_foreign_caller_takes_the_last_slot_and_alone_all_eight() {
    let cast = Cast { foreign: vec![12], ..Cast::of(SLOTS, 4, &[Act::Fault]) };
    let mut with_guest = course(&cast);
    assert_eq!(until_quiet(&mut with_guest, &cast, lowest).len(), 4);
    let mut alone = course(&cast);
    for (course, expected) in [(&mut with_guest, 4), (&mut alone, 8)] {
        let mut puts = 0;
        loop {
            let said = course.take(Choice::Foreign(0), &cast);
            puts += u32::from(said.put);
            if said.refused {
                break;
            }
        }
        assert_eq!((puts, course.free()), (expected, 0));
    }
}
