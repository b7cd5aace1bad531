//! Hidden breakpoints on two vCPUs: one executes the code, each time to the breakpoint, while the other reads it, each time without.
//!
//! `MEM_EVENT_HIDDEN` says how often the code is read (`ci/soak`: a million times).

use crate::support::domain::how_often;
use crate::support::example::Example;
use crate::support::{gates, replays, scenario};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::scenario::external::External;
use harness::scenario::{Act, MemoryAct, Number, Place, Scenario, Then, Time};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::trace::Reader;
use mem_event::{Cpu, Effect, Event};
use std::time::Duration;

/// Only the limit of what can be called a hang.
const DEADLINE: Duration = Duration::from_secs(3600);

/// How often it was told of a breakpoint, and of a read; and how often the guest executed the code.
struct Told {
    breakpoints: u64,
    reads: u64,
    rounds: u64,
}

/// The guest has found each of its reads and each of its calls right.
fn run(scenario: Scenario, gate: Gate) -> Told {
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario, None).unwrap();
    (job.gate, job.trace) = (gate, Some(folder.file("trace")));
    let outcome: Outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{gate:?}: {}\n{}", outcome.verdict, outcome.said);
    replays(&folder.file("trace"));
    assert!(gate == Gate::Callback || outcome.said.contains(" blocks were translated from copies"), "{}", outcome.said);
    let line = outcome.console.lines().find(|line| line.ends_with(" rounds")).unwrap();
    let rounds = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    let mut told = Told { breakpoints: 0, reads: 0, rounds };
    for step in Reader::open(folder.file("trace")).unwrap().map_while(Result::ok) {
        for effect in &step.effects.list {
            match effect {
                Effect::Requested { request, .. } if matches!(request.event, Event::Cpu(Cpu::Int3 { .. })) => {
                    told.breakpoints += 1;
                }
                Effect::Requested { request, .. } if matches!(request.event, Event::Violation { .. }) => {
                    told.reads += 1
                }
                _ => {}
            }
        }
    }
    eprintln!("{gate}: {} breakpoints, {} reads told, {rounds} rounds", told.breakpoints, told.reads);
    told
}

/// `hidden_breakpoint` on two vCPUs, of which one reads so often; at its first checkpoint this is done besides.
fn on_two_vcpus(reads: u64, besides: Option<MemoryAct>) -> Scenario {
    let mut scenario = scenario("hidden_breakpoint");
    scenario.machine.vcpus = 2;
    scenario.deadline = Time(DEADLINE);
    let write = MemoryAct::Write { at: Place::from("ROUNDS+0x8"), value: Number(reads), refused: None };
    scenario.steps[0].acts.extend([Some(write), besides].into_iter().flatten().map(Act::from));
    scenario
}

#[test]
fn code_that_one_vcpu_executes_to_its_breakpoint_has_none_where_the_other_reads_it() {
    let reads = how_often("MEM_EVENT_HIDDEN", 300);
    for gate in gates() {
        let told = run(on_two_vcpus(reads, None), gate);
        assert_eq!(told.breakpoints, told.rounds, "{gate:?}");
        // Also while QEMU translates what the other executes: it reads a copy of that.
        assert_eq!(told.reads, reads + 3, "{gate:?}");
    }
}

#[test]
fn a_vcpu_that_goes_by_another_view_reads_the_code_without_an_event() {
    let reads = how_often("MEM_EVENT_HIDDEN", 300);
    for gate in gates() {
        let other = MemoryAct::SwitchView { view: 0, vcpu: Some(1), refused: None };
        let told = run(on_two_vcpus(reads, Some(other)), gate);
        assert_eq!(told.breakpoints, told.rounds, "{gate:?}");
        assert!(told.reads <= 3, "{gate:?}: {}", told.reads);
    }
}

#[test]
fn a_hidden_breakpoint_that_is_injected_is_the_guests_and_its_code_stays_whole_to_read() {
    for gate in gates() {
        let mut scenario = scenario("hidden_breakpoint");
        // So the listener takes any breakpoint for the guest's own, and injects it.
        scenario.consumers.listener.as_mut().unwrap().rules[0].then = Then::Relax;
        let expect = MemoryAct::Expect { at: Place::from("ROUNDS+0x18"), value: Number(3) };
        scenario.steps[1].acts.push(expect.into());
        let told = run(scenario, gate);
        assert_eq!((told.breakpoints, told.rounds), (3, 3), "{gate:?}");
    }
}

#[test]
fn the_examples_hide_a_breakpoint_from_who_reads_it() {
    let bare = || Scenario::bare("hidden");
    let code = Job::new(bare(), None).unwrap().symbols().find("HIDDEN").unwrap().gpa;
    let in_rust = Example::in_rust("hidden").in_layout("vm_event7");
    let examples = [Some(in_rust), Example::in_c("hidden"), Some(Example::in_python("hidden"))];
    for example in examples.into_iter().flatten() {
        let example = example.about(&code.to_string());
        for gate in gates() {
            let mut scenario = bare();
            scenario.consumers.external = vec![External::parse(&example.with(&["access"])).unwrap()];
            let told = run(scenario, gate);
            assert_eq!((told.breakpoints, told.reads, told.rounds), (3, 3, 3), "{gate:?}: {}", example.command);
        }
    }
}
