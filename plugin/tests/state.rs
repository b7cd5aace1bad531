//! The state of a vCPU and the checkpoints that it reached, against models.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use mem_event::VcpuId;
use mem_event::spin::Spin;
use mem_event_plugin::host::checkpoints::{Arrival, Arrivals, Release};
use mem_event_plugin::host::state::{Go, State};
use mem_event_plugin::host::vcpu::Vcpu;

/// The same numbers in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

fn arrival(rip: u64, stack: u64) -> Arrival {
    Arrival { rip, stack, tables: 0x1000 }
}

fn vcpu(id: u32) -> Vcpu {
    Vcpu::new(VcpuId(id), Spin::Off).unwrap()
}

/// What the last events say of the state, kept as a history and not as a state.
#[derive(Default)]
struct History {
    /// The instruction of the last callback that ended with `Leave`, until another instruction had a callback, or this one was executed.
    left: Option<u64>,
    /// In that time a callback at the instruction ended with `Run`, without a report.
    passed: bool,
    /// The callback that is under way: its instruction, whether it may leave, whether it reported.
    standing: Option<(u64, bool, bool)>,
}

impl History {
    fn begins_block(&self) -> bool {
        matches!(self.standing, Some((rip, _, false)) if self.left == Some(rip))
    }
}

#[test]
fn a_block_begins_only_where_a_vcpu_came_back_to_and_has_reported_nothing_since() {
    let mut random = Random(1);
    let mut state = State::default();
    let mut model = History::default();
    for step in 0..100_000 {
        match (model.standing, random.below(4)) {
            (None, _) => {
                let (rip, may_leave) = (0x100 + random.below(3), random.below(4) != 0);
                assert_eq!(state.is_back_at(rip), model.left == Some(rip) && !model.passed, "step {step}: {state:?}");
                state = state.stand(rip, may_leave);
                if model.left != Some(rip) {
                    (model.left, model.passed) = (None, false);
                }
                model.standing = Some((rip, may_leave, false));
            }
            (Some((rip, may_leave, _)), 0) => {
                state = state.report();
                model.standing = Some((rip, may_leave, true));
            }
            (Some((rip, true, _)), 1) => {
                state = state.go(Go::Leave);
                model = History { left: Some(rip), passed: false, standing: None };
            }
            (Some((_, _, reported)), _) => {
                state = state.go(Go::Run);
                let left = model.left.filter(|_| !reported);
                model = History { left, passed: left.is_some(), standing: None };
            }
        }
        assert_eq!(state.begins_block(), model.begins_block(), "step {step}: {state:?}");
        let may_leave = model.standing.is_none_or(|(_, may_leave, _)| may_leave);
        assert_eq!(state.may_leave(), may_leave, "step {step}: {state:?}");
    }
}

#[test]
fn where_no_callback_is_under_way_its_end_changes_nothing() {
    for state in [State::Runs, State::Left { before: 1 }, State::Back { before: 1 }] {
        assert_eq!([Go::Run, Go::Leave].map(|go| state.go(go)), [state; 2]);
        assert_eq!(state.report(), state);
    }
}

#[test]
fn releases_are_for_arrivals_in_their_order() {
    let mut random = Random(2);
    let mut arrivals = Arrivals::default();
    // All that were not passed, in their order, with whether they have a release.
    let mut model: Vec<(Arrival, bool)> = Vec::new();
    for step in 0..100_000 {
        let at = arrival(random.below(4), random.below(3));
        let known = model.iter().position(|(known, _)| *known == at);
        match random.below(4) {
            0 | 1 => {
                let expected = known.map(|known| if model[known].1 { Release::Given } else { Release::Awaited });
                assert_eq!(arrivals.arrive(at), expected, "step {step}");
                if known.is_none() {
                    model.push((at, false));
                }
            }
            2 => {
                let oldest = model.iter_mut().find(|(_, released)| !released);
                let expected = oldest.map(|(at, released)| {
                    *released = true;
                    *at
                });
                assert_eq!(arrivals.release_oldest(), expected, "step {step}");
            }
            _ => {
                if let Some(known) = known.filter(|known| model[*known].1) {
                    model.remove(known);
                    arrivals.pass(at);
                }
            }
        }
        assert_eq!(arrivals.is_waiting(), model.iter().any(|(_, released)| !released), "step {step}");
    }
}

#[test]
fn arrivals_that_are_never_come_back_to_do_not_pile_up() {
    let mut arrivals = Arrivals::default();
    for stack in 0..1000 {
        assert_eq!(arrivals.arrive(arrival(1, stack)), None);
        assert!(arrivals.release_oldest().is_some());
    }
    assert_eq!(arrivals.arrive(arrival(1, 0)), None, "the oldest is forgotten");
    assert_eq!(arrivals.arrive(arrival(1, 999)), Some(Release::Given), "the youngest is not");
}

#[test]
fn a_nested_checkpoint_is_announced_and_waits_for_its_own_release() {
    let vcpu = vcpu(0);
    let (outer, inner) = (arrival(0x10, 0x800), arrival(0x20, 0x700));
    assert!(vcpu.arrive(outer), "announced");
    assert_eq!(vcpu.go(Go::Leave), Go::Leave);
    assert!(vcpu.arrive(inner), "announced too");
    vcpu.release_checkpoint();
    assert!(vcpu.checkpoint_word().is_stopped(), "that was the outer one's");
    vcpu.release_checkpoint();
    assert!(!vcpu.checkpoint_word().is_stopped());
    vcpu.go(Go::Run);
    assert!(!vcpu.arrive(outer), "not announced again");
    assert!(!vcpu.checkpoint_word().is_stopped(), "and it has its release");
    vcpu.go(Go::Run);
    assert!(!vcpu.awaits_release());
    assert!(vcpu.arrive(outer), "the next time round it is announced");
}

#[test]
fn the_same_place_on_another_stack_or_with_other_tables_is_another_arrival() {
    let vcpu = vcpu(1);
    assert!(vcpu.arrive(arrival(0x10, 0x800)));
    assert!(vcpu.arrive(arrival(0x10, 0x700)));
    assert!(vcpu.arrive(Arrival { tables: 0x2000, ..arrival(0x10, 0x800) }));
    assert!(!vcpu.arrive(arrival(0x10, 0x800)));
}

#[test]
fn an_arrival_that_nobody_heard_of_needs_no_release_and_takes_none_from_another() {
    let vcpu = vcpu(2);
    let (outer, inner) = (arrival(0x10, 0x800), arrival(0x20, 0x700));
    vcpu.arrive(outer);
    vcpu.go(Go::Leave);
    vcpu.arrive(inner);
    vcpu.release_arrival(inner);
    assert!(!vcpu.checkpoint_word().is_stopped());
    assert!(vcpu.awaits_release(), "the outer one has none");
}

#[test]
fn when_the_last_client_is_gone_every_arrival_is_released() {
    let vcpu = vcpu(3);
    vcpu.arrive(arrival(0x10, 0x800));
    vcpu.go(Go::Leave);
    vcpu.arrive(arrival(0x20, 0x700));
    vcpu.release_checkpoints();
    assert!(!vcpu.checkpoint_word().is_stopped());
    assert!(!vcpu.awaits_release());
}

#[test]
fn what_a_vcpu_runs_before_it_is_back_is_checked_anew() {
    use mem_event_plugin::insn::cache::Part;
    let vcpu = vcpu(4);
    vcpu.cache.revalidate();
    vcpu.cache.allow(0x5000, Part::Read);
    vcpu.stand(0x10, true);
    vcpu.go(Go::Run);
    assert!(vcpu.cache.allows(0x5000, Part::Read));
    vcpu.stand(0x10, true);
    vcpu.go(Go::Leave);
    assert!(!vcpu.cache.allows(0x5000, Part::Read));
}
