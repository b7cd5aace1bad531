//! Misbehaving consumers as processes on a real guest: the guest is unharmed. It waits, or goes on, and its next consumer serves it
//! to its end.

use crate::support::{file_holds, scenario, sequence_of, served_by, unless_busy, wait_for};
use harness::consumers::external::Running;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::run::Job;
use harness::scenario::external::{External, HandedRing};
use harness::scenario::settings::{Consumer, Fault, FaultySettings, ListenerSettings, Treatment};
use harness::scenario::{MemoryAct, Stop, Time};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::message::{Call, Notice};
use mem_event::trace::{Reader, Step, replay};
use mem_event::{AccessType, Control, Domain, Input, Ring};
use mem_event_client::Client;
use std::path::Path;
use std::time::{Duration, Instant};

fn settings(fault: Fault, at: u64) -> Consumer {
    Consumer::Faulty(FaultySettings { fault, at, delay: 5 })
}

/// Nothing is watched once the page has its rights, so the checks may go; the vCPU still waits, and does nothing.
#[test]
fn a_vcpu_whose_answer_lacks_vcpu_paused_makes_no_step_after_its_page_is_open() {
    let mut bad = scenario("read_write");
    bad.consumers.listener = None;
    bad.consumers.process = vec![settings(Fault::NotPaused, 1)];
    bad.steps.truncate(1);
    // A write to it makes the rights whole.
    let watch = MemoryAct::Watch { frames: "WATCHED".into(), stop: Stop(AccessType::Rx), view: None };
    bad.steps[0].acts = vec![watch.into()];
    bad.deadline = Time(Duration::from_secs(2));
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(bad, None).unwrap();
    job.trace = Some(folder.file("trace"));
    let outcome = job.run(&mut Silent, None).unwrap();
    assert!(outcome.verdict.reason.contains("the deadline of 2s passed"), "{}", outcome.verdict);
    let (mut answered, mut later) = (false, 0);
    let reader = Reader::open(folder.file("trace")).unwrap();
    let mut domain = Domain::new(reader.header().config.clone()).unwrap();
    let see = |_, step: &Step| {
        later += u32::from(answered && matches!(step.input, Input::Access { .. }));
        answered |= matches!(step.input, Input::Kick { .. });
    };
    replay(reader, &mut domain, see).unwrap();
    assert_eq!((answered, later), (true, 0), "it asks for nothing more");
}

fn start(socket: &Path, external: &External) -> Running {
    let mut running = Running::start(socket, external, &scenario("page_fault"), None).unwrap();
    running.wait_until_ready(Instant::now() + Duration::from_secs(60)).unwrap();
    running
}

fn process(consumer: &Consumer) -> External {
    consumer.external(Path::new(env!("CARGO_BIN_EXE_mem-event"))).unwrap()
}

/// The `page_fault` guest with a consumer that misbehaves at its `at`th event; when it has, it is killed, and a listener that does
/// right takes its ring over. What the guest says at its end, and the requests and answers.
fn served_to_its_end_after(fault: Fault, at: u64) -> (String, String) {
    let (mut qemu, folder, job) = with_trace("page_fault");
    let socket = folder.file("socket");
    let mut toolstack = Client::connect(&socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let said = folder.file("said");
    let mut bad = process(&settings(fault, at));
    bad.command += &format!(" >{}", said.display());
    let mut bad = start(&socket, &bad);
    qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &toolstack);
    let Some(Notice::Checkpoint { vcpu, .. }) = toolstack.notice().unwrap() else { panic!("no checkpoint") };
    let watched = job.symbols().find("WATCHED").unwrap().gpa.gfn();
    let watch = |access| Call::Control(Control::SetAccess { first: watched, count: 1, access });
    toolstack.values(&watch(AccessType::N)).unwrap();
    toolstack.values(&Call::Release { vcpu }).unwrap();
    if fault == Fault::Dying {
        wait_for("its death", bad.wait_for().unwrap());
        assert!(bad.fault().unwrap().unwrap().contains("signal: 9"));
    } else {
        file_holds(&said, &format!("event {at}: {fault:?}"));
        bad.kill();
    }
    let good = HandedRing { ring: Ring::Access, layout: None, slots: 0 };
    let consumer = Consumer::Listener(ListenerSettings { treatment: Treatment::Grant, ..ListenerSettings::default() });
    let good = External { rings: vec![good], ..process(&consumer) };
    let mut good = unless_busy(|| Running::start(&socket, &good, &scenario("page_fault"), None)).unwrap();
    good.wait_until_ready(Instant::now() + Duration::from_secs(60)).unwrap();
    wait_for("the second checkpoint", &toolstack);
    toolstack.notice().unwrap().unwrap();
    // The reply may come too late: QEMU ends as the guest does.
    toolstack.send(&Call::Release { vcpu }).unwrap();
    wait_for("the guest's end", &qemu);
    assert_eq!(good.finish().unwrap(), None);
    qemu.wait().unwrap();
    (qemu.console(), sequence_of(&folder.file("trace")))
}

fn with_trace(name: &str) -> (Qemu, RunFolder, Job) {
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario(name), None).unwrap();
    job.trace = Some(folder.file("trace"));
    let qemu = job.machine().unwrap().start(&folder).unwrap();
    (qemu, folder, job)
}

#[test]
fn a_guest_outlives_a_silent_consumer() {
    let (console, sequence) = served_to_its_end_after(Fault::Silent, 1);
    assert!(console.contains("success"), "{console}");
    let requests: Vec<&str> = sequence.lines().filter(|line| line.starts_with("access")).collect();
    assert_eq!(requests[0], requests[1], "the successor is asked once more:\n{sequence}");
}

#[test]
fn a_guest_outlives_a_consumer_that_dies_at_its_second_event() {
    let (console, sequence) = served_to_its_end_after(Fault::Dying, 2);
    assert!(console.contains("success"), "{console}");
    assert!(sequence.lines().filter(|line| line.starts_with("answer")).count() >= 2, "{sequence}");
}

#[test]
fn a_guest_outlives_answers_given_twice() {
    let (console, sequence) = served_to_its_end_after(Fault::Duplicate, 1);
    assert!(console.contains("success"), "{console}\n{sequence}");
}

#[test]
fn a_guest_outlives_an_answer_that_means_nothing() {
    let (console, sequence) = served_to_its_end_after(Fault::Malformed, 1);
    assert!(console.contains("success"), "{console}\n{sequence}");
}

#[test]
fn a_guest_outlives_an_answer_for_another_vcpu() {
    let (console, sequence) = served_to_its_end_after(Fault::WrongVcpu, 1);
    assert!(console.contains("success"), "{console}");
    assert!(sequence.contains("answer on access  vcpu 1"), "{sequence}");
}

#[test]
fn a_slow_consumer_gives_the_sequence_of_a_quick_one() {
    let quick = served_by(scenario("page_fault"), &[settings(Fault::Slow, 100)]);
    let slow = served_by(scenario("page_fault"), &[settings(Fault::Slow, 1)]);
    assert_eq!(slow.0.verdict.kind, Kind::Success);
    assert_eq!(slow.1, quick.1);
    assert!(slow.1.contains("answer"), "{}", slow.1);
}

#[test]
fn answers_out_of_order_reach_those_whom_they_are_for() {
    let (outcome, sequence) = served_by(scenario("smp_storm"), &[settings(Fault::OutOfOrder, 1)]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    let of = |kind: &str| {
        let lines = sequence.lines().filter(|line| line.starts_with(kind));
        let mut vcpus: Vec<String> = lines.map(|line| line.split("vcpu ").nth(1).unwrap()[..1].to_owned()).collect();
        vcpus.sort();
        vcpus
    };
    assert_eq!(of("access"), of("answer on access"));
}
