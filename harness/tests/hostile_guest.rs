//! Guests that do what no guest should. Whatever they do, the run ends with a verdict that says what became of them, within its
//! deadline; QEMU dies of nothing but what the guest asked of it, and the trace ends in order and replays.
//!
//! `MEM_EVENT_HOSTILE_SEEDS` says how many seeds of random code (`ci/soak`: a thousand); without it a few, always the same.

use crate::support::{gates, replays, scenario};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::scenario::{ConsumerAct, Role, Scenario, Time};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::trace::{Tape, Why};
use std::path::Path;
use std::time::Duration;

/// Runs a scenario of this text. Its verdict is for the caller; that it is one about the guest is seen here.
fn run(gate: Gate, text: &str) -> Outcome {
    let text = format!("version = 1\nabout = \"hostile\"\n{text}");
    run_scenario(gate, Scenario::parse(Path::new("hostile.toml"), text).unwrap())
}

/// The same for a scenario that is there.
fn run_scenario(gate: Gate, scenario: Scenario) -> Outcome {
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = gate;
    job.trace = Some(folder.file("trace"));
    let outcome = job.run(&mut Silent, None).expect("a verdict");
    let told = format!("{}\n{}\n{}", outcome.verdict, outcome.said, outcome.console);
    assert!(!outcome.verdict.reason.contains("QEMU died"), "{told}");
    assert!(!outcome.said.contains("panicked"), "{told}");
    replays(&folder.file("trace"));
    let end = Tape::open(folder.file("trace")).unwrap().end().clone();
    assert_eq!(end.why, Why::Finished, "{end}\n{told}");
    outcome
}

fn is(outcome: &Outcome, kind: Kind, reason: &str) {
    let verdict = &outcome.verdict;
    assert!(
        verdict.kind == kind && verdict.reason.contains(reason),
        "{verdict}\n{}\n{}",
        outcome.said,
        outcome.console
    );
}

/// The same for a guest that never ends: on a busy machine it may not have come so far by a short deadline, and then does by a longer one.
fn is_by_a_deadline(mut by: impl FnMut(u64) -> Outcome, reason: &str) {
    let came_far = [3, 15].into_iter().map(&mut by).find(|outcome| outcome.verdict.reason.contains(reason));
    is(&came_far.unwrap_or_else(|| by(90)), Kind::Failure, reason);
}

/// The guest `hostile` on its way, with a listener that ends events so, and what else is done before.
fn on_its_way(way: u32, vcpus: u32, then: &str, more: &str) -> String {
    format!(
        r#"
        deadline = "60s"
        machine = {{ guest = "hostile", vcpus = {vcpus} }}
        [[consumers.listener.rules]]
        reason = "violation"
        then = "{then}"
        [[consumers.listener.rules]]
        then = "answer"
        [[steps]]
        at = 1
        do = [{{ write = {{ at = "WAY", value = {way} }} }}, {more}]
        "#
    )
}

const WATCHED: &str =
    r#"{ set-access = { frames = "PAGES", access = "n" } }, { set-access = { frames = "RETURN", access = "r" } }"#;

#[test]
fn tables_and_code_that_change_under_the_watch_of_others_end_well() {
    for gate in gates() {
        let outcome = run(gate, &on_its_way(0, 4, "grant", WATCHED));
        is(&outcome, Kind::Success, "");
        assert!(outcome.records.len() > 64, "{gate}: {} events", outcome.records.len());
    }
}

#[test]
fn a_storm_of_every_kind_of_event_ends_well() {
    let monitors =
        ["cr3", "msr", "int3"].map(|event| format!(r#"{{ monitor = {{ event = "{event}", mode = "sync" }} }}"#));
    let outcome = run(Gate::Callback, &on_its_way(1, 4, "grant", &format!("{WATCHED}, {}", monitors.join(", "))));
    is(&outcome, Kind::Success, "");
    // Four vCPUs, 400 rounds, two CPU events each: CR3 is written with what it holds, which is none.
    assert!(outcome.records.len() >= 3200, "{} events", outcome.records.len());
}

/// Under `gate=mmu` a stopped vCPU stands in the kernel, where it keeps QEMU from its end: that was seen at the deadline only.
#[test]
fn a_reset_while_events_are_outstanding_is_a_crash_of_the_guest() {
    for gate in gates() {
        is(&run(gate, &on_its_way(2, 4, "silence", WATCHED)), Kind::Crash, "the guest reset itself");
    }
}

#[test]
fn a_triple_fault_while_events_are_outstanding_is_a_crash_of_the_guest() {
    for gate in gates() {
        is(&run(gate, &on_its_way(3, 4, "silence", WATCHED)), Kind::Crash, "the guest reset itself");
    }
}

#[test]
fn a_guest_that_sleeps_is_ended_by_its_deadline_which_says_so() {
    let by = |seconds| run(Gate::Callback, &on_its_way(4, 4, "grant", WATCHED).replace("60s", &format!("{seconds}s")));
    is_by_a_deadline(by, "s passed; the guest sleeps (S3)");
}

#[test]
fn a_guest_that_powers_off_without_a_verdict_has_none() {
    for gate in gates() {
        is(&run(gate, &on_its_way(5, 4, "silence", WATCHED)), Kind::Error, "no verdict from the guest");
    }
}

#[test]
fn registers_of_devices_that_are_all_ones_end_by_the_deadline() {
    let text = on_its_way(6, 2, "grant", WATCHED).replace("60s", "3s");
    is(&run(Gate::Callback, &text), Kind::Failure, "the deadline of 3s passed");
}

/// Nobody brings the page back that the disk's request waits for, and the guest waits with the disk that it has ejected.
#[test]
fn a_disk_that_cannot_go_ends_by_the_deadline_which_names_its_frame() {
    let by = |seconds| {
        let mut unplug = scenario("unplug");
        unplug.deadline = Time(Duration::from_secs(seconds));
        unplug.steps[0].acts.push(ConsumerAct::Kill { consumer: Role::Pager }.into());
        run_scenario(Gate::Callback, unplug)
    };
    is_by_a_deadline(by, "for frame");
}

/// So many seeds, or those of the long run.
fn seeds(few: u32) -> std::ops::RangeInclusive<u32> {
    let many = std::env::var("MEM_EVENT_HOSTILE_SEEDS").ok().map(|text| text.parse().unwrap());
    1..=many.unwrap_or(few)
}

/// Random programs, and how long the guest may take for them.
fn programs(seed: u32, [in_ring_3, in_ring_0]: [u32; 2], deadline: &str) -> String {
    format!(
        r#"
        deadline = "{deadline}"
        machine = {{ guest = "random_code", cpu = "max" }}
        [[consumers.listener.rules]]
        then = "grant"
        [[steps]]
        at = 1
        do = [
            {{ write = {{ at = "SEED", value = {seed} }} }},
            {{ write = {{ at = "SEED+0x8", value = {in_ring_3} }} }},
            {{ write = {{ at = "SEED+0x10", value = {in_ring_0} }} }},
            {{ set-access = {{ frames = "DATA", access = "n" }} }},
            {{ set-access = {{ frames = "CODE", access = "w" }} }},
            {{ set-access = {{ frames = "SEED", access = "r" }} }},
        ]
        "#
    )
}

#[test]
fn random_code_in_ring_3_is_decoded_and_does_no_harm() {
    for seed in seeds(1) {
        for gate in gates() {
            is(&run(gate, &programs(seed, [3000, 0], "60s")), Kind::Success, "");
        }
    }
}

#[test]
fn random_code_in_ring_0_harms_nobody_but_the_guest() {
    for seed in seeds(4) {
        for gate in gates() {
            let outcome = run(gate, &programs(seed, [0, 100], "2s"));
            // Its own end, or what it brought upon itself; one that has switched the steps off may run in circles.
            println!("seed {seed}, {gate}: {}", outcome.verdict);
        }
    }
}
