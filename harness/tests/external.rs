//! Consumers that are processes of their own: the worked examples in three languages give the built-in listener's sequences, and
//! one that fails is named.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::machine::folder::RunFolder;
use harness::run::{Job, Outcome};
use harness::scenario::Scenario;
use harness::scenario::external::External;
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{replays, scenario, sequence_of};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../mem-event/client/examples")
}

/// Runs a scenario whose rings are served by commands; the outcome, and what the trace holds of requests and answers.
fn run(mut scenario: Scenario, commands: &[&str]) -> (Outcome, String) {
    scenario.consumers.external = commands.iter().map(|command| External::parse(command).unwrap()).collect();
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario, None).unwrap();
    job.trace = Some(folder.file("trace"));
    let outcome = job.run(&mut Silent, None).unwrap();
    let sequence = sequence_of(&folder.file("trace"));
    (outcome, sequence)
}

fn gives_the_built_in_listeners_sequences(command: &str) {
    for name in ["page_fault", "rights"] {
        let (_, own) = run(scenario(name), &[]);
        assert!(own.contains("answer on access"), "{own}");
        let (outcome, sequence) = run(scenario(name), &[command]);
        assert_eq!(outcome.verdict.kind, Kind::Success, "{name}: {}", outcome.verdict);
        assert_eq!(sequence, own, "{command} on {name}");
    }
}

#[test]
fn the_example_in_rust_gives_the_built_in_listeners_sequences() {
    let program = std::env::current_exe().unwrap();
    // Cargo builds it with the workspace's tests, two folders up from this one.
    let example = program.ancestors().nth(2).unwrap().join("examples/listener");
    assert!(example.is_file(), "no {}; cargo build --release --examples -p mem-event-client", example.display());
    gives_the_built_in_listeners_sequences(&format!("access={}", example.display()));
}

#[test]
fn the_example_in_c_gives_the_built_in_listeners_sequences() {
    if !Path::new("/usr/include/xen/vm_event.h").exists() {
        eprintln!("skipped: Xen's public headers are not installed (ci/setup installs libxen-dev)");
        return;
    }
    let folder = RunFolder::create().unwrap();
    let (source, program) = (examples().join("listener.c"), folder.file("listener"));
    let compiled =
        Command::new("cc").args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).status();
    assert!(compiled.unwrap().success());
    gives_the_built_in_listeners_sequences(&format!("access:vm_event7={}", program.display()));
}

#[test]
fn the_example_in_python_gives_the_built_in_listeners_sequences() {
    let source = examples().join("listener.py");
    gives_the_built_in_listeners_sequences(&format!("access:flags32=python3 {}", source.display()));
}

#[test]
fn a_consumer_that_fails_ends_the_run_and_is_named() {
    // It says that it is ready, and dies.
    let dies = r#"access=sh -c 'echo >/proc/self/fd/$MEM_EVENT_READY_FD; exit 7'"#;
    let (outcome, _) = run(scenario("page_fault"), &[dies]);
    assert_eq!(outcome.verdict.kind, Kind::Failure);
    assert!(outcome.verdict.reason.contains("exit status: 7"), "{}", outcome.verdict);
}

#[test]
fn a_consumer_that_fails_when_its_domain_has_ended_is_named_and_the_guests_success_does_not_hide_it() {
    let waits = "import os; at = lambda name: int(os.environ[\"MEM_EVENT_\" + name]); os.write(at(\"READY_FD\"), b\".\"); \
                 os.read(at(\"SOCKET_FD\"), 1); os._exit(7)";
    let dies = format!("sharing=python3 -c '{waits}'");
    let (outcome, _) = run(scenario("page_fault"), &[&dies]);
    assert_eq!(outcome.verdict.kind, Kind::Failure, "{}", outcome.verdict);
    assert!(outcome.verdict.reason.contains("exit status: 7"), "{}", outcome.verdict);
}

#[test]
fn a_consumer_that_never_says_ready_is_named_and_the_guest_does_not_start() {
    let (outcome, sequence) = run(scenario("page_fault"), &["access=true"]);
    assert_eq!(outcome.verdict.kind, Kind::Error);
    assert!(outcome.verdict.reason.contains("`true` never was ready"), "{}", outcome.verdict);
    assert_eq!(sequence, "");
    assert!(outcome.records.is_empty(), "the guest ran");
}

#[test]
fn a_ring_is_handed_to_one_consumer_only() {
    let ready = r#"access=sh -c 'echo >/proc/self/fd/$MEM_EVENT_READY_FD; sleep 60'"#;
    let (outcome, _) = run(scenario("page_fault"), &[ready, ready]);
    assert_eq!(outcome.verdict.kind, Kind::Error);
    assert!(outcome.verdict.reason.contains("EBUSY"), "{}", outcome.verdict);
}

#[test]
fn a_trace_with_an_external_consumer_replays() {
    let folder = RunFolder::create().unwrap();
    let command = format!("access:flags32=python3 {}", examples().join("listener.py").display());
    let mut rights = scenario("rights");
    rights.consumers.external = vec![External::parse(&command).unwrap()];
    let mut job = Job::new(rights, None).unwrap();
    job.trace = Some(folder.file("trace"));
    assert_eq!(job.run(&mut Silent, None).unwrap().verdict.kind, Kind::Success);
    assert!(replays(&folder.file("trace")) > 20);
}
