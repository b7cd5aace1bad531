//! The built-in consumers on a real guest: the pager's policies and its page file, the listener's treatments, the helper.

use crate::support::{file_holds, machine, replays, run, run_to_its_deadline, scenario, served_by, wait_for};
use harness::machine::folder::RunFolder;
use harness::run::Job;
use harness::scenario::chaos::Chaos;
use harness::scenario::settings::{
    Consumer, HelperSettings, ListenerSettings, PagerSettings, Policy, Store, Treatment,
};
use harness::scenario::{Act, At, ConsumerAct, MemoryAct, Name, Scenario, ScenarioStep, Size};
use harness::toolstack::log::Silent;
use harness::toolstack::transcript;
use harness::trace;
use harness::verdict::Kind;
use mem_event::AccessType;
use mem_event::message::Call;
use mem_event::{Control, Input, Outcome};
use mem_event_client::Client;
use std::time::Duration;

const PAGES: u64 = 64;
/// What is left of a machine's memory with this target: what lies below one mebibyte and cannot leave, and 64 frames.
const TARGET: u64 = 320 << 12;

fn at_first_checkpoint(acts: Vec<Act>) -> Vec<ScenarioStep> {
    vec![ScenarioStep { at: At::Number(1), vcpu: None, acts }]
}

/// The `page_in` guest with this pager.
fn paged(pager: PagerSettings, steps: Vec<ScenarioStep>) -> Scenario {
    let mut scenario = scenario("page_in");
    scenario.consumers.pager = Some(pager);
    Scenario { steps, ..scenario }
}

#[test]
fn each_policy_holds_a_guest_to_a_target_that_changes_while_it_runs() {
    for policy in [Policy::Mru, Policy::Clock, Policy::Random] {
        for store in [Store::File, Store::Memory] {
            let pager = PagerSettings { policy, store, seed: 7, ..PagerSettings::default() };
            let steps = at_first_checkpoint(vec![ConsumerAct::Target { memory: Size(TARGET) }.into()]);
            let (outcome, sequence) = run(paged(PagerSettings { target: Some(Size(64 << 20)), ..pager }, steps));
            let paged = outcome.paged;
            assert!(paged.pages_out > 100 && paged.pages_in > 0, "{policy:?} {store:?}: {paged:?}");
            assert!(sequence.contains("-> hold to 1.2 MiB"), "{sequence}");
        }
    }
}

#[test]
fn a_pager_nominates_no_frame_that_nobody_has_touched() {
    for policy in [Policy::Mru, Policy::Clock, Policy::Random] {
        let pager = PagerSettings { policy, target: Some(Size(64 << 20)), seed: 7, ..PagerSettings::default() };
        let steps = at_first_checkpoint(vec![ConsumerAct::Target { memory: Size(TARGET) }.into()]);
        let folder = RunFolder::create().unwrap();
        let mut job = Job::new(paged(pager, steps), None).unwrap();
        job.trace = Some(folder.file("trace"));
        assert_eq!(job.run(&mut Silent, None).unwrap().verdict.kind, Kind::Success);
        let mut tape = trace::open(&folder.file("trace")).unwrap();
        let (mut taken, mut refused) = (0, 0);
        for number in 1..=tape.len() {
            let step = tape.step(number).unwrap();
            if matches!(step.input, Input::Control(Control::Nominate { .. })) {
                *(if step.outcome == Outcome::Proceed { &mut taken } else { &mut refused }) += 1;
            }
        }
        assert!(taken > 100 && refused == 0, "{policy:?}: {taken} nominations were taken, {refused} refused");
    }
}

/// In which the guest comes by all its pages for the first time. When it reads code that went out later is up to QEMU, which keeps what it
/// translated.
const LAST_PAGE: &str = "gfn 0x53f ";

#[test]
fn the_same_seed_evicts_the_same_frames() {
    let sequence = |seed| {
        let pager = PagerSettings { policy: Policy::Random, seed, ..PagerSettings::default() };
        let steps = at_first_checkpoint(vec![ConsumerAct::Target { memory: Size(TARGET) }.into()]);
        let all = run(paged(PagerSettings { target: Some(Size(64 << 20)), ..pager }, steps)).1;
        let (first_pass, _) = all.split_once(LAST_PAGE).expect("the last page was out");
        first_pass.lines().filter(|line| line.contains("PAGES")).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = sequence(1);
    assert!(first.len() > 32, "{first:?}");
    assert_eq!(first, sequence(1));
    assert_ne!(first, sequence(2));
}

#[test]
fn prefetched_frames_are_not_asked_for() {
    let pager = PagerSettings { prefetch: 7, ..PagerSettings::default() };
    let (outcome, sequence) = run(paged(pager, scenario("page_in").steps));
    assert_eq!(outcome.counts.paging, PAGES / 8, "{sequence}");
    assert_eq!((outcome.paged.pages_in, outcome.paged.prefetched), (PAGES, PAGES / 8 * 7));
    assert!(sequence.contains("-> load, prefetch 7, answer"), "{sequence}");
}

#[test]
fn a_full_page_file_refuses_evictions_and_the_guest_is_unharmed() {
    let pager = PagerSettings { capacity: Some(8), ..PagerSettings::default() };
    let (outcome, sequence) = run(paged(pager, scenario("page_in").steps));
    assert!(sequence.contains("page out 8 of 64 frames of PAGES"), "{sequence}");
    assert_eq!(outcome.paged.pages_in, 8);
    let full = "nothing more is evicted: the page file is full with 8 frames";
    assert_eq!(outcome.notes, [full]);
    assert!(sequence.contains("EVICT_FAIL -> answer"), "those that were nominated come back:\n{sequence}");
}

#[test]
fn a_target_that_a_full_page_file_cannot_hold_is_given_up_and_the_guest_goes_on() {
    let pager = PagerSettings { capacity: Some(8), ..PagerSettings::default() };
    let steps = at_first_checkpoint(vec![ConsumerAct::Target { memory: Size(TARGET) }.into()]);
    let (outcome, _) = run(paged(PagerSettings { target: Some(Size(64 << 20)), ..pager }, steps));
    assert!(outcome.notes[0].contains("full with 8 frames"), "{:?}", outcome.notes);
}

#[test]
fn a_read_of_the_page_file_that_fails_is_tried_again() {
    let pager = PagerSettings { failing_reads: 3, ..PagerSettings::default() };
    let (outcome, _) = run(paged(pager, scenario("page_in").steps));
    assert_eq!(outcome.paged.pages_in, PAGES);
}

#[test]
fn a_frame_that_cannot_be_read_leaves_its_vcpu_stopped_and_the_cause_is_named() {
    let pager = PagerSettings { failing_reads: u32::MAX, ..PagerSettings::default() };
    let (outcome, job) =
        run_to_its_deadline(paged(pager, scenario("page_in").steps), |outcome| !outcome.sleepers.is_empty());
    let sequence = transcript::text(&outcome.records, 1, &job.symbols());
    let waits = "for an answer on the paging ring about frame 0x500 (PAGES), from this program's pager";
    assert!(outcome.sleepers[0].ends_with(waits), "{:?}", outcome.sleepers);
    assert!(outcome.notes[0].starts_with("frame 0x500 cannot be brought back: the page file cannot be read"));
    assert!(sequence.ends_with("-> cannot be read, no answer\n"), "{sequence}");
}

/// The access events of the `page_in` guest, whose pages from 0x500 on are watched from its first checkpoint, as often as
/// each comes. It reads its pages, writes them, and reads them, a word at a time.
fn events_of(treatment: Treatment, range: &str, access: AccessType) -> Vec<String> {
    events_under(Chaos::default(), treatment, range, access)
}

fn events_under(chaos: Chaos, treatment: Treatment, range: &str, access: AccessType) -> Vec<String> {
    let listener = Consumer::Listener(ListenerSettings { treatment, ..ListenerSettings::default() });
    let steps = at_first_checkpoint(vec![
        MemoryAct::SetAccess { frames: range.into(), access: Name(access), view: None, refused: None }.into(),
    ]);
    let mut watched = Scenario { steps, chaos, ..scenario("page_in") };
    watched.consumers.pager = None;
    let (outcome, trace) = served_by(watched, &[listener]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{treatment:?}: {}", outcome.verdict);
    trace.lines().filter(|line| line.starts_with("access")).map(str::to_owned).collect()
}

#[test]
fn a_page_that_is_allowed_once_is_stopped_at_every_access() {
    assert_each_access_once(&events_of(Treatment::Once, "0x500", AccessType::N));
}

/// The vCPU leaves its block while it waits, and comes back to an instruction of which nothing was executed.
#[test]
fn however_late_an_answer_is_what_is_let_through_once_ran_once() {
    let late = |nth| format!("[[faults]]\nlate-response = {{ ring = \"access\", nth = {nth}, by = \"20ms\" }}\n");
    let chaos: Chaos = toml::from_str(&(1..=40).map(late).collect::<String>()).unwrap();
    assert_each_access_once(&events_under(chaos, Treatment::Once, "0x500", AccessType::N));
}

fn assert_each_access_once(events: &[String]) {
    assert_eq!(events.len(), 3 * 512, "512 words are read, written and read");
    for (number, event) in events.iter().enumerate() {
        let offset = format!("offset {:#x} ", number % 512 * 8);
        assert!(event.contains("gfn 0x500") && event.contains(&offset), "{number}: {event}");
        assert!(event.contains(if number / 512 == 1 { "-w-" } else { "r--" }), "{number}: {event}");
    }
}

/// To a device the answer is nothing, so its access came again for ever.
#[test]
fn a_device_gets_through_where_instructions_are_let_through() {
    let once = Consumer::Listener(ListenerSettings { treatment: Treatment::Once, ..ListenerSettings::default() });
    let mut watched = scenario("dma");
    watched.consumers.listener = None;
    let (outcome, trace) = served_by(watched, &[once]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert!(trace.contains("FOREIGN"), "{trace}");
}

#[test]
fn a_page_that_is_armed_again_is_stopped_each_time_the_guest_comes_back_to_it() {
    let events = events_of(Treatment::Rearm, "0x500..0x502", AccessType::N);
    let frames: Vec<&str> = events.iter().map(|event| &event[16..25]).collect();
    assert_eq!(frames, ["gfn 0x500", "gfn 0x501"].repeat(3), "{events:#?}");
}

#[test]
fn a_page_that_is_relaxed_is_stopped_once() {
    assert_eq!(events_of(Treatment::Relax, "0x500..0x502", AccessType::N).len(), 2);
}

#[test]
fn a_page_that_is_opened_for_what_was_asked_is_stopped_for_each_kind() {
    let events = events_of(Treatment::Grant, "0x500", AccessType::N);
    let kinds: Vec<bool> = events.iter().map(|event| event.contains("-w-")).collect();
    assert_eq!(kinds, [false, true]);
}

#[test]
fn what_is_only_logged_goes_on_where_the_rights_let_it() {
    assert_eq!(events_of(Treatment::Log, "0x500..0x502", AccessType::N2rwx).len(), 2);
}

#[test]
fn what_an_answer_cannot_say_is_refused_with_the_remedy() {
    for (treatment, what, remedy) in [
        ("deny", "cannot be answered with a fault", "a fault is injected by the toolstack"),
        ("emulate", "has no room for other data", "access:vm_event7"),
    ] {
        let folder = harness::machine::folder::RunFolder::create().unwrap();
        let consumer = format!("access={} consumer listener --treatment {treatment}", env!("CARGO_BIN_EXE_mem-event"));
        let output =
            crate::support::command(&folder).args(["run", "page_fault", "--consumer", &consumer]).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(what) && said.contains(remedy), "{said}");
    }
}

#[test]
fn the_helper_raises_the_budget_until_the_guest_has_what_it_touches() {
    let helper = Consumer::Helper(HelperSettings { frames: 16 });
    let (mut qemu, folder, _) = machine(scenario("example"));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_mem-event"));
    let command = helper.external(program).unwrap();
    let mut running =
        harness::consumers::external::Running::start(&folder.file("socket"), &command, &scenario("example"), None)
            .unwrap();
    running.wait_until_ready(std::time::Instant::now() + Duration::from_secs(60)).unwrap();
    // From here on what the guest touches first needs frames that the budget does not have.
    toolstack.values(&Call::Control(Control::SetBudget { frames: 0 })).unwrap();
    let before = toolstack.info().unwrap();
    toolstack.values(&Call::Control(Control::SetBudget { frames: before.resident })).unwrap();
    qemu.qmp.execute("cont").unwrap();
    wait_for("the guest's end", &qemu);
    assert_eq!(running.finish().unwrap(), None);
    assert!(qemu.console().contains("success"), "{}", qemu.console());
}

#[test]
fn a_pager_in_its_own_process_follows_its_target_file() {
    let (mut qemu, folder, _) = machine(scenario("page_in"));
    let (target, said) = (folder.file("target"), folder.file("said"));
    std::fs::write(&target, "64M").unwrap();
    let command = format!(
        "paging,sharing={} consumer pager --policy clock --target-file {} 2>{}",
        env!("CARGO_BIN_EXE_mem-event"),
        target.display(),
        said.display()
    );
    let command = harness::scenario::external::External::parse(&command).unwrap();
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut running =
        harness::consumers::external::Running::start(&folder.file("socket"), &command, &scenario("example"), None)
            .unwrap();
    running.wait_until_ready(std::time::Instant::now() + Duration::from_secs(60)).unwrap();
    qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &toolstack);
    toolstack.notice().unwrap().unwrap();
    let before = toolstack.info().unwrap();
    assert_eq!((before.paged, before.budget), (0, (64 << 20) / 4096));
    std::fs::write(&target, "1280K").unwrap();
    rustix::process::kill_process(running.pid(), rustix::process::Signal::HUP).unwrap();
    file_holds(&said, "the target is 1.2 MiB");
    // What it does at a signal it does before it serves on: nothing is left to do but what the guest asks for.
    while toolstack.info().unwrap().budget != TARGET / 4096 || toolstack.info().unwrap().resident > TARGET / 4096 {
        std::thread::yield_now();
    }
    toolstack.values(&Call::Release { vcpu: mem_event::VcpuId(0) }).unwrap();
    wait_for("the second checkpoint", &toolstack);
    toolstack.notice().unwrap().unwrap();
    // The reply may come too late: QEMU ends as the guest does.
    toolstack.send(&Call::Release { vcpu: mem_event::VcpuId(0) }).unwrap();
    wait_for("the guest's end", &qemu);
    assert_eq!(running.finish().unwrap(), None);
    assert!(qemu.console().contains("success"), "{}", qemu.console());
}

#[test]
fn a_trace_of_a_listener_in_its_own_process_replays() {
    let folder = harness::machine::folder::RunFolder::create().unwrap();
    let settings = ListenerSettings { treatment: Treatment::Once, ..ListenerSettings::default() };
    let mut scenario = scenario("page_fault");
    scenario.consumers.process = vec![Consumer::Listener(settings)];
    let mut job = Job::new(scenario, None).unwrap();
    job.trace = Some(folder.file("trace"));
    assert_eq!(job.run(&mut Silent, None).unwrap().verdict.kind, Kind::Success);
    assert!(replays(&folder.file("trace")) > 0);
}
