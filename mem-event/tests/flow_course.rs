//! The four policies under every schedule of small systems, and under seeded schedules of larger ones: what holds of each, and what does
//! not, with the shortest sequence of choices that breaks it.
//!
//! A sequence is read so: `v0` vCPU 0 does its next statement (a claim; then its pause and its put), `f0` foreign caller 0 (a claim; then
//! a put), `drop` the toolstack gives a frame back, `a0` the oldest request is answered.

mod common;

use common::course::{Act, Cast, Choice, Course, Said};
use mem_event::Ring;
use mem_event::flow::{Flow, FlowKind};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use Act::{Balloon, Fault, Report, Share};

const ALL: [FlowKind; 4] = FlowKind::ALL;

fn word(choice: Choice) -> String {
    match choice {
        Choice::Run(vcpu) => format!("v{vcpu}"),
        Choice::Foreign(caller) => format!("f{caller}"),
        Choice::Drop => "drop".to_owned(),
        Choice::Answer(at) => format!("a{at}"),
    }
}

/// All states that a cast can come to, in the order of their distance, each with the choice that led to it first.
struct Search {
    states: Vec<Course>,
    came: Vec<Option<(usize, Choice)>>,
    edges: Vec<(usize, Choice, usize, Said)>,
}

impl Search {
    fn new(start: Course, cast: &Cast) -> Search {
        let mut search = Search { states: vec![start.clone()], came: vec![None], edges: Vec::new() };
        let mut known = HashMap::from([(start, 0)]);
        let mut next = 0;
        while next < search.states.len() {
            for choice in search.states[next].choices(cast) {
                let mut state = search.states[next].clone();
                let said = state.take(choice, cast);
                let at = match known.entry(state) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        search.states.push(new.key().clone());
                        search.came.push(Some((next, choice)));
                        *new.insert(search.states.len() - 1)
                    }
                };
                search.edges.push((next, choice, at, said));
            }
            next += 1;
            assert!(next < 400_000, "the system is too large");
        }
        search
    }

    fn path(&self, state: usize) -> Vec<String> {
        let mut words = Vec::new();
        let mut at = state;
        while let Some((before, choice)) = self.came[at] {
            words.push(word(choice));
            at = before;
        }
        words.reverse();
        words
    }

    /// The shortest way to a step that says so.
    fn first_step(&self, such: impl Fn(&Said) -> bool) -> Option<String> {
        let (from, choice, ..) = self.edges.iter().find(|(.., said)| such(said))?;
        let mut words = self.path(*from);
        words.push(word(*choice));
        Some(words.join(" "))
    }

    /// The shortest way to a state.
    fn first_state(&self, such: impl Fn(&Course) -> bool) -> Option<String> {
        let at = self.states.iter().position(such)?;
        Some(self.path(at).join(" "))
    }

    /// The shortest way to a state from which no choice whatever leads to the end.
    fn first_hang(&self, cast: &Cast) -> Option<String> {
        let mut reaches: Vec<bool> = self.states.iter().map(|state| state.is_over(cast)).collect();
        let mut backwards = vec![Vec::new(); self.states.len()];
        for (from, _, to, _) in &self.edges {
            backwards[*to].push(*from);
        }
        let mut todo: Vec<usize> = (0..reaches.len()).filter(|at| reaches[*at]).collect();
        while let Some(at) = todo.pop() {
            for from in &backwards[at] {
                if !std::mem::replace(&mut reaches[*from], true) {
                    todo.push(*from);
                }
            }
        }
        let at = reaches.iter().position(|reaches| !reaches)?;
        Some(self.path(at).join(" "))
    }
}

fn search(kind: FlowKind, ring: Ring, cast: &Cast) -> Search {
    Search::new(Course::new(Flow::new(kind, ring), cast), cast)
}

/// What each policy comes to, in the order of `ALL`: `None` where it holds, else the shortest sequence that breaks it.
fn table(ring: Ring, cast: &Cast, find: impl Fn(&Search) -> Option<String>) -> [Option<String>; 4] {
    ALL.map(|kind| find(&search(kind, ring, cast)))
}

fn is(expected: [Option<&str>; 4]) -> [Option<String>; 4] {
    expected.map(|it| it.map(str::to_owned))
}

#[test]
fn vcpus_that_fault_hang_under_v5_alone() {
    let cast = Cast { any_order: true, ..Cast::of(1, 3, &[Fault, Fault]) };
    let found = table(Ring::Access, &cast, |search| search.first_hang(&cast));
    // Claim, pause, put of vCPU 0; claim, pause and a put that sleeps of vCPU 1: two pauses, and its wake takes one back.
    assert_eq!(found, is([None, None, Some("v0 v0 v1 v1"), None]));
}

#[test]
fn an_event_that_pauses_nobody_hangs_nobody() {
    let cast = Cast { any_order: true, ..Cast::of(2, 3, &[Report, Report]) };
    assert_eq!(table(Ring::Access, &cast, |search| search.first_hang(&cast)), is([None; 4]));
}

#[test]
fn a_put_sleeps_under_v5_alone() {
    let cast = Cast::of(1, 2, &[Report]);
    let found = table(Ring::Access, &cast, |search| search.first_step(|said| said.in_put));
    assert_eq!(found, is([None, None, Some("v0 v0 v1 v1"), None]));
}

#[test]
fn more_slots_are_claimed_than_are_free_under_v5_alone() {
    let cast = Cast { foreign: vec![1], ..Cast::of(2, 3, &[Fault]) };
    let over = |course: &Course| course.flow.claims() > course.free();
    let found = table(Ring::Access, &cast, |search| search.first_state(over));
    assert_eq!(found, is([None, None, Some("v0 v1 v2"), None]));
}

#[test]
fn only_queue_lets_no_newcomer_take_a_slot_that_others_sleep_for() {
    let cast = Cast::of(1, 3, &[Fault, Fault]);
    let found = table(Ring::Access, &cast, |search| search.first_step(|said| said.overtook));
    // Before the patch and in what Xen took the answered vCPU, or another, claims before the woken one runs.
    assert_eq!(found, is([None, Some("v0 v0 v1 a0 v2"), Some("v0 v0 v1 v1 v2"), Some("v0 v0 v1 a0 v2")]));
}

#[test]
fn only_queue_wakes_nobody_in_vain() {
    let cast = Cast::of(1, 3, &[Report]);
    let found = table(Ring::Access, &cast, |search| search.first_step(|said| said.in_vain));
    assert_eq!(found[0], None);
    assert!(found[2..].iter().all(Option::is_some), "{found:?}");
    let cast = Cast::of(1, 3, &[Fault]);
    let found = table(Ring::Access, &cast, |search| search.first_step(|said| said.in_vain));
    assert!(found[0].is_none() && found[1].is_some() && found[3].is_some(), "{found:?}");
}

#[test]
fn events_of_vcpus_are_lost_before_the_patch_alone() {
    let cast = Cast::of(1, 2, &[Report]);
    let found = table(Ring::Access, &cast, |search| search.first_step(|said| said.lost));
    assert_eq!(found, is([None, Some("v0 v1"), None, None]));
    let cast = Cast::of(1, 2, &[Fault]);
    let found = table(Ring::Access, &cast, |search| search.first_step(|said| said.lost));
    assert_eq!(found, is([None; 4]), "an instruction that faults makes its event anew");
}

#[test]
fn without_memory_a_vcpu_hangs_before_the_patch_and_by_it() {
    let cast = Cast::of(1, 2, &[Share]);
    let found = table(Ring::Sharing, &cast, |search| search.first_hang(&cast));
    // Before the patch: paused, then told that the ring is full, with no request out. By the patch: sharing's answers wake nobody.
    assert_eq!(found, is([None, Some("v0 v1"), Some("v0 v0 v1 v1"), None]));
}

#[test]
fn a_pause_after_the_put_hangs_only_where_an_answer_takes_no_count_below_0() {
    let cast = Cast::of(2, 1, &[Share]);
    let found = table(Ring::Sharing, &cast, |search| search.first_hang(&cast));
    assert_eq!(found, is([None; 4]), "the signed count of 2011 corrects itself");
    let cast = Cast { floor: true, ..cast };
    let found = table(Ring::Sharing, &cast, |search| search.first_hang(&cast));
    assert_eq!(found, is([None, None, Some("v0 v0 a0"), None]));
}

#[test]
fn a_notice_of_a_dropped_frame_is_lost_on_a_full_ring_by_all_that_xen_had_and_ruins_v5s_accounts() {
    let cast = Cast { drops: 1, ..Cast::of(1, 1, &[Fault]) };
    let lost = table(Ring::Paging, &cast, |search| search.first_step(|said| said.lost));
    assert_eq!(lost, is([None, Some("v0 drop"), Some("v0 v0 drop"), Some("v0 drop")]));
    let ruined = table(Ring::Paging, &cast, |search| search.first_state(|course| course.flow.claims() > 3));
    assert_eq!(ruined, is([None, None, Some("drop"), None]));
    let cast = Cast { drops: 1, foreign: vec![1], ..Cast::of(4, 2, &[Fault]) };
    let hang = table(Ring::Paging, &cast, |search| search.first_hang(&cast));
    assert_eq!(
        hang,
        is([None, None, Some("drop"), None]),
        "from then on every vCPU sleeps, and no foreign claim succeeds"
    );
}

#[test]
fn a_balloon_of_the_guest_shuts_foreign_callers_out_under_v5() {
    let cast = Cast { foreign: vec![1], ..Cast::of(4, 1, &[Balloon]) };
    let hang = table(Ring::Paging, &cast, |search| search.first_hang(&cast));
    assert_eq!(hang, is([None, None, Some("v0 v0"), None]));
}

#[test]
fn a_foreign_caller_takes_the_guests_last_slot_before_the_patch_and_in_what_xen_took() {
    let cast = Cast { foreign: vec![2], ..Cast::of(2, 1, &[Fault]) };
    let full = |course: &Course| course.free() == 0 && course.oldest() == Some(None) && course.choices(&cast).len() > 1;
    let alone =
        |course: &Course| full(course) && course.choices(&cast).contains(&Choice::Run(0)) && !course.wants_room(0);
    let found = table(Ring::Paging, &cast, |search| search.first_state(alone));
    assert_eq!(found, is([None, Some("f0 f0 f0 f0"), None, Some("f0 f0 f0 f0")]));
}

#[test]
fn the_form_that_was_merged_in_2012_stalls_with_an_empty_ring_and_more_vcpus_than_slots() {
    for (slots, vcpus, hangs) in [(2, 2, false), (2, 3, true)] {
        let cast = Cast::of(slots, vcpus, &[Report, Report]);
        let search = Search::new(Course::new(Flow::as_merged(Ring::Access), &cast), &cast);
        assert_eq!(search.first_hang(&cast).is_some(), hangs, "{vcpus} vCPUs on {slots} slots");
        let in_4_17 = table(Ring::Access, &cast, |search| search.first_hang(&cast));
        assert_eq!(in_4_17[3], None, "the later form does not");
    }
}

/// SplitMix64.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (usize::try_from((z ^ (z >> 31)) >> 33).unwrap_or(0)) % limit
    }
}

#[derive(Default)]
struct Told {
    puts: u32,
    lost: u32,
    overtaken: u32,
    in_vain: u32,
    in_put: u32,
    over_committed: u32,
}

/// A seeded schedule to the end, or until nobody can go on; whether it came to the end.
fn walk(kind: FlowKind, cast: &Cast, seed: u64) -> (Told, bool) {
    let mut course = Course::new(Flow::new(kind, Ring::Access), cast);
    let (mut seed, mut told) = (Seed(seed), Told::default());
    loop {
        let choices = course.choices(cast);
        // A foreign caller that is refused for ever is a choice for ever.
        let refused = choices
            .iter()
            .all(|choice| matches!(choice, Choice::Foreign(_)) && course.clone().take(*choice, cast).refused);
        if refused {
            return (told, course.is_over(cast));
        }
        let said = course.take(choices[seed.below(choices.len())], cast);
        told.puts += u32::from(said.put);
        told.lost += u32::from(said.lost);
        told.overtaken += u32::from(said.overtook);
        told.in_vain += u32::from(said.in_vain);
        told.in_put += u32::from(said.in_put);
        told.over_committed += u32::from(course.flow.claims() > course.free());
    }
}

#[test]
fn seeded_schedules_of_nine_vcpus_show_the_same() {
    let program = [Fault, Report, Fault, Fault, Report, Fault];
    let cast = Cast { foreign: vec![5, 5], any_order: true, ..Cast::of(4, 9, &program) };
    let events = 9 * 6 + 10;
    let (mut hung, mut lost) = (0, 0);
    for seed in 0..200 {
        let (queue, over) = walk(FlowKind::Queue, &cast, seed);
        assert!(over, "seed {seed}");
        let broken = queue.lost + queue.overtaken + queue.in_vain + queue.in_put + queue.over_committed;
        assert_eq!((queue.puts, broken), (events, 0), "seed {seed}");
        let (blocked, over) = walk(FlowKind::Blocked2012, &cast, seed);
        assert!(
            over && blocked.puts == events && blocked.lost + blocked.in_put + blocked.over_committed == 0,
            "seed {seed}"
        );
        let (check, over) = walk(FlowKind::CheckRing, &cast, seed);
        assert!(over && check.puts + check.lost == events && check.in_put + check.over_committed == 0, "seed {seed}");
        let (v5, over) = walk(FlowKind::WaitQueueV5, &cast, seed);
        assert!(v5.in_put > 0 && v5.over_committed > 0, "seed {seed}");
        (hung, lost) = (hung + u32::from(!over), lost + v5.lost);
    }
    assert_eq!((hung, lost), (198, 0), "of 200 schedules, and of 2,000 foreign requests");
}
