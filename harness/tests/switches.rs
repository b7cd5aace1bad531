//! A vCPU that its answers switch from view to view.
//!
//! `MEM_EVENT_SWITCHES` says how often (`ci/soak`: 100,000 times).

use crate::support::domain::how_often;
use crate::support::{gates, scenario};
use harness::run::Job;
use harness::scenario::{Act, ConsumerAct, MemoryAct, Scenario, Time};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use std::time::Duration;

/// Only the limit of what can be called a hang.
const DEADLINE: Duration = Duration::from_secs(3600);

/// `views_switched` with so many switches, two a round.
fn switched(times: u64) -> Scenario {
    let mut scenario = scenario("views_switched");
    scenario.deadline = Time(DEADLINE);
    let mut changed = 0;
    for act in scenario.steps.iter_mut().flat_map(|step| &mut step.acts) {
        match act {
            Act::Memory(MemoryAct::Write { value, .. }) => value.0 = times / 2,
            Act::Consumer(ConsumerAct::ExpectEvents { count, .. }) => *count = times / 2 * 2,
            _ => continue,
        }
        changed += 1;
    }
    assert_eq!(changed, 2, "the scenario says how often, and expects as many events");
    scenario
}

#[test]
fn each_read_that_a_view_forbids_makes_one_event_and_is_done_in_the_other_view() {
    let times = how_often("MEM_EVENT_SWITCHES", 200);
    for gate in gates() {
        let mut job = Job::new(switched(times), None).unwrap();
        job.gate = gate;
        let outcome = job.run(&mut Silent, None).unwrap();
        assert_eq!(outcome.verdict.kind, Kind::Success, "{gate:?}: {}\n{}", outcome.verdict, outcome.said);
        assert_eq!(outcome.counts.access, times / 2 * 2, "{gate:?}");
    }
}
