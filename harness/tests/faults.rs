//! Faults into consumers' worlds: a right consumer survives them, and one that is wrong fails where it passes without.
//!
//! `MEM_EVENT_SEEDS` says how many seeds each right consumer is to survive (`ci/soak`: a hundred).

use crate::support::domain::how_often;
use crate::support::example::{Example, examples, held_to};
use crate::support::{replays, scenario, sequence_of};
use harness::machine::folder::RunFolder;
use harness::run::{Job, Outcome};
use harness::scenario::external::External;
use harness::scenario::settings::{Consumer, ListenerSettings, PagerSettings, Policy, Treatment};
use harness::scenario::{Scenario, Size, Time};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::Ring;
use mem_event_server::chaos::{Fault, Plan, Refusable, fault};
use std::time::Duration;

/// Runs a scenario with faults; how it went, the faults that were made, and the requests and answers.
fn run(scenario: Scenario, plan: &str) -> (Outcome, Vec<String>, String) {
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario, None).unwrap();
    job.trace = Some(folder.file("trace"));
    if !plan.is_empty() {
        plan.parse::<Plan>().unwrap();
        job.plugin.push(format!("chaos={plan}"));
    }
    let outcome = job.run(&mut Silent, None).unwrap();
    replays(&folder.file("trace"));
    let faults = outcome.said.lines().filter_map(|line| line.strip_prefix("mem-event: fault: "));
    let faults = faults.map(str::to_owned).collect();
    let sequence = sequence_of(&folder.file("trace"));
    (outcome, faults, sequence)
}

fn survives(name: &str, scenario: &Scenario, plan: &str) -> (Vec<String>, String) {
    let (outcome, faults, sequence) = run(scenario.clone(), plan);
    let what = format!("{name}, {plan}: {}\n{}\n{}", outcome.verdict, outcome.console, outcome.said);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{what}");
    (faults, sequence)
}

/// A consumer's scenarios under so many seeds each.
fn survives_seeds(name: &str, scenarios: &[Scenario]) {
    let seeds = how_often("MEM_EVENT_SEEDS", 3);
    let mut all = 0;
    for scenario in scenarios {
        for seed in 1..=seeds {
            all += survives(name, scenario, &format!("seed {seed}")).0.len();
        }
    }
    println!(
        "{name}: {} scenarios, {seeds} seeds each, {all} faults; all succeeded, all traces replay",
        scenarios.len()
    );
}

fn with_process(name: &str, consumer: Consumer) -> Scenario {
    let mut scenario = scenario(name);
    scenario.consumers.process = vec![consumer];
    scenario
}

fn with_command(name: &str, command: &str) -> Scenario {
    let mut scenario = scenario(name);
    scenario.consumers.external = vec![External::parse(command).unwrap()];
    scenario
}

/// A pager that is a process of its own, and holds the guest to less than it touches.
fn pager() -> Scenario {
    let settings = PagerSettings { policy: Policy::Random, target: Some(Size(320 << 12)), ..PagerSettings::default() };
    let mut scenario = with_process("page_in", Consumer::Pager(settings));
    (scenario.consumers.pager, scenario.steps) = (None, Vec::new());
    scenario
}

#[test]
fn the_pager_survives_every_seed() {
    survives_seeds("pager", &[scenario("page_in")]);
    survives_seeds("pager, a process", &[pager()]);
}

#[test]
fn the_listener_survives_every_seed() {
    survives_seeds("listener", &[scenario("rights"), scenario("smp_storm")]);
    let process = Consumer::Listener(ListenerSettings { treatment: Treatment::Grant, ..ListenerSettings::default() });
    survives_seeds(
        "listener, a process",
        &[with_process("rights", process.clone()), with_process("smp_storm", process)],
    );
}

/// A worked example of a listener, and one of a pager: it pages out what it is ordered to, and holds the guest to a target.
fn examples_survive(language: &str, listener: Example, pager: Example) {
    let (listener, pager) = (listener.quiet(), pager.quiet());
    let accesses = listener.with(&["access"]);
    survives_seeds(
        &format!("listener.{language}"),
        &[with_command("rights", &accesses), with_command("smp_storm", &accesses)],
    );
    let mut held = held_to(320);
    held.consumers.external = vec![External::parse(&pager.with(&["paging", "sharing"])).unwrap()];
    survives_seeds(&format!("pager.{language}"), &[with_command("page_in", &pager.with(&["paging"])), held]);
}

#[test]
fn the_examples_in_rust_survive_every_seed() {
    examples_survive("rs", Example::in_rust("listener"), Example::in_rust("pager"));
}

#[test]
fn the_examples_in_c_survive_every_seed() {
    if let (Some(listener), Some(pager)) = (Example::in_c("listener"), Example::in_c("pager")) {
        examples_survive("c", listener, pager);
    }
}

#[test]
fn the_examples_in_python_survive_every_seed() {
    examples_survive("py", Example::in_python("listener"), Example::in_python("pager"));
}

/// How long a run that is to fail may take until it has.
const SHORT: Time = Time(Duration::from_secs(10));

/// The listener in Python, changed, in `rights`.
fn changed(from: &str, to: &str, folder: &RunFolder) -> Scenario {
    let mut changes = 0;
    for name in ["listener.py", "mem_event.py"] {
        let text = std::fs::read_to_string(examples().join(name)).unwrap();
        changes += text.matches(from).count();
        std::fs::write(folder.file(name), text.replace(from, to)).unwrap();
    }
    assert_eq!(changes, 1, "{from:?}");
    with_command("rights", &format!("access:flags32=python3 {}", folder.file("listener.py").display()))
}

/// How a run ends that is to fail under these faults.
fn found_out(mut scenario: Scenario, plan: &str) -> Outcome {
    scenario.deadline = SHORT;
    let (outcome, ..) = run(scenario, plan);
    assert_ne!(outcome.verdict.kind, Kind::Success, "{plan}");
    outcome
}

/// The first seed that makes a fault, among the first ten requests of the access ring or calls, which is like this.
fn first_seed(wanted: impl Fn(&Plan, u64) -> bool) -> Plan {
    let plan = |seed| Plan { seed: Some(seed), without: vec![fault::Kind::Kill], ..Plan::none() };
    (1..100).map(plan).find(|plan| (3..=10).any(|nth| wanted(plan, nth))).unwrap()
}

#[test]
fn a_listener_that_takes_a_notification_for_a_request_is_found_out() {
    // Once it has served a request, it serves what is in the next slot whenever it wakes.
    let from = "while self.index[REQ_PROD] != self.consumed:";
    let to = "for _ in range(max(self.consumed and 1, (self.index[REQ_PROD] - self.consumed) & 0xFFFFFFFF)):";
    let is_one_more =
        |plan: &Plan, nth| matches!(plan.at_request(Ring::Access, nth), Some(Fault::SpuriousNotification { .. }));
    // It answers what nobody asked for; by when it does, its ring is broken, or a request stays without an answer.
    // Without faults whether it passes is chance: one that is late finds the request before it hears of it.
    let folder = RunFolder::create().unwrap();
    found_out(changed(from, to, &folder), &first_seed(is_one_more).to_string());
}

#[test]
fn a_listener_that_gives_up_where_there_is_no_memory_is_found_out() {
    let is_refused = |plan: &Plan, nth| plan.refusal(Refusable::SetAccess, nth).is_some();
    let plan = first_seed(is_refused).to_string();
    let folder = RunFolder::create().unwrap();
    let handed_over = "if not ring.hand_over(*wanted):\n                connection.insist(*wanted)";
    let hasty = changed(handed_over, "connection.call(*wanted)", &folder);
    survives("without faults", &hasty, "");
    let outcome = found_out(hasty, &plan);
    assert!(outcome.verdict.reason.contains("listener.py"), "{}", outcome.verdict);
}

#[test]
fn a_refused_eviction_leaves_the_frame_and_the_pager_says_so() {
    let (faults, sequence) = survives("pager", &scenario("page_in"), "refuse evict 3 EBUSY 2;refuse load 2 ENOMEM 1");
    assert_eq!(faults, ["refuse evict 3 EBUSY 1", "refuse evict 4 EBUSY 1", "refuse load 2 ENOMEM 1"]);
    // Two frames were touched while they were nominated; the one that did not come was asked for again.
    assert_eq!(sequence.matches("EVICT_FAIL").count(), 4, "{sequence}");
    let (_, without) = survives("pager", &scenario("page_in"), "");
    let requests = |sequence: &str| sequence.lines().filter(|line| line.starts_with("paging")).count();
    assert_eq!(requests(&sequence), requests(&without) + 1, "{sequence}");
}

#[test]
fn a_killed_consumer_has_a_successor_that_is_asked_again() {
    let process = Consumer::Listener(ListenerSettings { treatment: Treatment::Grant, ..ListenerSettings::default() });
    let (faults, sequence) = survives("listener", &with_process("rights", process), "kill access 3");
    assert_eq!(faults, ["kill access 3"]);
    let (_, without) = survives("listener", &scenario("rights"), "");
    let requests = |sequence: &str| sequence.lines().filter(|line| line.starts_with("access")).count();
    assert_eq!(requests(&sequence), requests(&without) + 1, "{sequence}");
}

#[test]
fn late_and_spurious_notifications_and_late_responses_change_no_sequence() {
    let (_, without) = survives("listener", &scenario("rights"), "");
    let plan = "late-notification access 1 9000us;spurious-notification access 2 2000us;late-response access 2 9000us";
    let (faults, sequence) = survives("listener", &scenario("rights"), plan);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(sequence, without);
}

#[test]
fn the_same_seed_makes_the_same_faults_of_one_vcpu() {
    let once = || survives("listener", &scenario("rights"), "seed 5;without kill").0;
    let first = once();
    assert!(!first.is_empty());
    assert_eq!(first, once());
}
