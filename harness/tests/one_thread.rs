//! One thread of QEMU's that runs all vCPUs by turns: the others run while one waits, and each gets what it gets with a thread of its own.

use crate::support::domain::how_often;
use crate::support::storm::Storm;
use crate::support::{Random, answer, judged, kernel_maps_write_protected, next_request, once_under, scenario};
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::icount::Icount;
use harness::scenario::{Scenario, Thread, Time};
use harness::suite;
use harness::toolstack::log::Silent;
use mem_event::AccessType;
use std::path::Path;
use std::time::Duration;

/// Only the limit of what can be called a hang.
const DEADLINE: Duration = Duration::from_secs(300);
/// Of the answers of a run so many may be late.
const ANSWERS: u64 = 60;
/// By so many milliseconds at most: twice what a vCPU keeps its thread for.
const LATEST: u64 = 10;

/// What is wrong with the scenarios that are chosen, with this change of them, under a gate.
fn differences(gate: Gate, is_chosen: impl Fn(&Scenario) -> bool, change: impl Fn(&mut Scenario)) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let chosen = suite::cases(&[folder]).unwrap().into_iter().filter(|case| is_chosen(&case.scenario));
    let mut count = 0;
    let wrong = chosen.filter_map(|mut case| {
        count += 1;
        change(&mut case.scenario);
        case.scenario.deadline = Time(DEADLINE);
        judged(&case, &once_under(gate)).1
    });
    let wrong = wrong.collect();
    assert!(count > 5, "{count} scenarios");
    wrong
}

fn are_the_same(gate: Gate, is_chosen: impl Fn(&Scenario) -> bool, change: impl Fn(&mut Scenario)) {
    if gate == Gate::Callback || kernel_maps_write_protected() {
        let wrong = differences(gate, is_chosen, change);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn has_several(scenario: &Scenario) -> bool {
    scenario.machine.vcpus > 1
}

/// Whose vCPUs wait for nothing that comes only when others wait too.
fn runs_by_itself(scenario: &Scenario) -> bool {
    const ALL: [&str; 9] = [
        "alone",
        "alone_crowd",
        "break_by_frame",
        "n2rwx_crowd",
        "n2rwx_sweep",
        "one_page_for_all",
        "share_all",
        "smp_storm",
        "views",
    ];
    ALL.contains(&scenario.name.as_str())
}

fn by_turns(scenario: &mut Scenario) {
    scenario.machine.thread = Thread::Single;
}

/// Some answers of each ring come later, by times drawn from a seed.
fn with_late_answers(scenario: &mut Scenario, seed: u64) {
    let mut random = Random(seed);
    let mut faults = String::new();
    for ring in ["access", "paging"] {
        for nth in (1..=ANSWERS).filter(|_| random.below(3) == 0).collect::<Vec<_>>() {
            let by = 1 + random.below(LATEST);
            faults += &format!("[[faults]]\nlate-response = {{ ring = \"{ring}\", nth = {nth}, by = \"{by}ms\" }}\n");
        }
    }
    scenario.chaos = toml::from_str(&faults).unwrap();
}

#[test]
fn all_scenarios_of_several_vcpus_are_the_same_by_turns_by_the_callback() {
    are_the_same(Gate::Callback, has_several, by_turns);
}

#[test]
fn all_scenarios_of_several_vcpus_are_the_same_by_turns_by_the_hosts_mmu() {
    are_the_same(Gate::Mmu, has_several, by_turns);
}

/// `MEM_EVENT_SEED` is the seed.
#[test]
fn scenarios_are_the_same_by_turns_however_late_answers_are() {
    for (gate, seed) in [Gate::Callback, Gate::Mmu].into_iter().zip(how_often("MEM_EVENT_SEED", 1)..) {
        are_the_same(gate, runs_by_itself, |scenario| {
            by_turns(scenario);
            with_late_answers(scenario, seed);
        });
    }
}

#[test]
fn scenarios_of_several_vcpus_are_the_same_where_instructions_are_counted() {
    for gate in [Gate::Callback, Gate::Mmu] {
        are_the_same(gate, runs_by_itself, |scenario| scenario.machine.icount = Some(Icount { shift: 2 }));
    }
}

/// One whose access is answered at once, and not let through, asks again without having left its block.
#[test]
fn each_vcpu_is_heard_though_each_is_answered_before_it_would_give_way() {
    let mut storm = Storm::in_one_thread();
    let mut heard = [0_u64; 8];
    while heard.contains(&0) {
        let request = next_request(&mut storm.listener);
        heard[request.vcpu.0 as usize] += 1;
        answer(&mut storm.listener, &request);
    }
    println!("{heard:?}");
    storm.qemu.qmp.execute("stop").unwrap();
    storm.qemu.qmp.execute("cont").unwrap();
    storm.set(AccessType::Rwx);
    storm.answer_pending(u32::MAX);
    storm.ends();
}

/// Which vCPU it runs is told by a name that QEMU exports; without it every event would be the first vCPU's.
#[test]
fn vcpus_of_one_thread_that_cannot_be_told_apart_are_refused_with_the_remedy() {
    let mut storm = scenario("smp_storm");
    storm.machine.thread = Thread::Single;
    for gate in [Gate::Callback, Gate::None] {
        let mut job = Job::new(storm.clone(), None).unwrap();
        job.gate = gate;
        job.plugin = vec!["falsify=names".into()];
        let refusal = job.run(&mut Silent, None).map(|outcome| outcome.verdict.to_string()).unwrap_err().to_string();
        assert!(refusal.contains("one thread runs all vCPUs") && refusal.contains("take thread=multi"), "{refusal}");
    }
}
