//! Eight vCPUs on a ring of four slots: every event is delivered exactly once, and everybody finishes, 50 times in a row.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::transcript::Record;
use std::collections::HashSet;
use support::{run, scenario};

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
                Record::Event { request, .. } => Some((request.vcpu.0, request.gfn.0)),
                Record::Checkpoint { .. } => None,
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
