//! Consumers that are processes of their own: the worked examples in three languages do what the built-in consumers do, and one that
//! fails is named.

use crate::support::domain::Domain;
use crate::support::example::{Example, examples, held_to};
use crate::support::{command, replays, scenario, sequence_of};
use harness::machine::folder::RunFolder;
use harness::run::{Job, Outcome};
use harness::scenario::external::External;
use harness::scenario::{Scenario, corpus};
use harness::suite::case::{Case, Judged, Settings};
use harness::suite::judge;
use harness::suite::report::difference;
use harness::suite::snapshot::text;
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::Gfn;
use mem_event::message::{VcpuReport, VcpuState};
use mem_event_client::Order;
use std::time::Duration;

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

fn gives_the_built_in_listeners_sequences(example: &Example) {
    for name in ["page_fault", "rights"] {
        let (_, own) = run(scenario(name), &[]);
        assert!(own.contains("answer on access"), "{own}");
        let (outcome, sequence) = run(scenario(name), &[&example.with(&["access"])]);
        assert_eq!(outcome.verdict.kind, Kind::Success, "{name}: {}", outcome.verdict);
        assert_eq!(sequence, own, "{} on {name}", example.command);
        let events = built_in(name).lines().filter(|line| line.starts_with("access")).count();
        assert_eq!(outcome.counts.access, events as u64);
        let judged = judged(name, &example.with(&["access"]), Some(built_in(name)));
        assert_eq!(judged.verdict.kind, Kind::Success, "{name}: {}\n{}", judged.verdict, difference(&judged, false));
    }
}

/// The accepted sequence of a built-in scenario.
fn built_in(name: &str) -> String {
    text(corpus::snapshot(name).unwrap())
}

/// A built-in scenario with a command in place of its listener, against a sequence.
fn judged(name: &str, command: &str, accepted: Option<String>) -> Judged {
    let mut scenario = scenario(name);
    scenario.consumers.external = vec![External::parse(command).unwrap()];
    let case = Case { scenario, file: None, accepted, broken: None };
    judge(&case, &Settings { repeat: 1, ..Settings::default() }, None)
}

/// The example in Python, changed, as a consumer.
fn changed_example(folder: &RunFolder, from: &str, to: &str) -> String {
    let source = std::fs::read_to_string(examples().join("listener.py")).unwrap();
    assert!(source.contains(from), "{source}");
    let path = folder.file("changed.py");
    std::fs::write(&path, source.replace(from, to)).unwrap();
    std::fs::copy(examples().join("mem_event.py"), folder.file("mem_event.py")).unwrap();
    format!("access:flags32=python3 {}", path.display())
}

#[test]
fn a_listener_that_grants_all_rights_fails_its_scenario_with_the_difference_as_events() {
    let folder = RunFolder::create().unwrap();
    let command = changed_example(&folder, "has | rights & RIGHTS", "7");
    let judged = judged("rights", &command, Some(built_in("rights")));
    assert_eq!(judged.verdict.to_string(), "failure: the sequence has changed");
    let difference = difference(&judged, false);
    assert!(difference.contains("-> set r, answer") && difference.contains("-> set rwx, answer"), "{difference}");
}

#[test]
fn what_a_consumer_does_outside_of_an_answer_stands_on_lines_of_its_own() {
    let folder = RunFolder::create().unwrap();
    // Before any event, so that it is no part of an answer for certain.
    let with_an_act = "    connection.call(SET_ACCESS, 0x3, 1, 3)\n    say_ready()\n";
    let command = changed_example(&folder, "    say_ready()\n", with_an_act);
    let judged = judged("page_fault", &command, None);
    let sequence = judged.sequence.unwrap();
    let acts = sequence.lines().skip_while(|line| !line.starts_with("consumer of ")).collect::<Vec<_>>();
    assert_eq!(acts, ["consumer of access:", "  set 0x3 rw"], "{sequence}");
    assert!(sequence.starts_with(built_in("page_fault").trim_end()), "{sequence}");
}

#[test]
fn the_events_of_a_consumer_of_ones_own_are_in_the_summary_and_in_json() {
    let folder = RunFolder::create().unwrap();
    let consumer = format!("access:flags32=python3 {}", examples().join("listener.py").display());
    let output = command(&folder).args(["run", "page_fault", "--json", "--consumer", &consumer]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events = |kind: &str| lines.iter().filter(|line| line["event"] == kind).collect::<Vec<_>>();
    let (access, summary) = (events("access"), events("summary"));
    assert!(!access.is_empty() && summary.len() == 1, "{said}");
    assert_eq!(summary[0]["events"]["access"], access.len());
    assert!(access.iter().all(|line| line["done"][0].as_str().unwrap().starts_with("set ")), "{said}");
}

#[test]
fn a_sequence_whose_record_is_cut_is_not_judged_and_says_what_to_do() {
    let case = Case { scenario: scenario("rights"), file: None, accepted: Some(built_in("rights")), broken: None };
    let settings = Settings { repeat: 1, trace_limit: Some(1), ..Settings::default() };
    let judged = judge(&case, &settings, None);
    assert_eq!(judged.verdict.kind, Kind::Error, "{}", judged.verdict);
    assert!(judged.verdict.reason.contains("--trace-limit"), "{}", judged.verdict);
}

#[test]
fn the_listener_in_rust_gives_the_built_in_listeners_sequences() {
    gives_the_built_in_listeners_sequences(&Example::in_rust("listener"));
}

#[test]
fn the_listener_in_c_gives_the_built_in_listeners_sequences() {
    let Some(example) = Example::in_c("listener") else { return };
    gives_the_built_in_listeners_sequences(&example);
}

#[test]
fn the_listener_in_python_gives_the_built_in_listeners_sequences() {
    gives_the_built_in_listeners_sequences(&Example::in_python("listener"));
}

/// Each with as many slots as its paging ring has. The order of what several vCPUs do is chance, and so are devices' touches.
const PAGED: [(&str, u32, bool); 16] = [
    ("page_in", 0, true),
    ("page_touch", 0, true),
    ("out_every_round", 0, true),
    ("prep_unasked", 0, true),
    ("evict_fail", 0, true),
    ("evict_unasked", 0, true),
    ("balloon_paged", 0, true),
    ("balloon_nominated", 0, true),
    ("map_paged", 0, true),
    ("mapped_stays", 0, true),
    ("paged_and_watched", 0, true),
    ("map_paged_and_watched", 0, true),
    ("interrupts_paged", 0, true),
    ("foreign_storm", 2, false),
    ("one_page_for_all", 0, false),
    ("disk_virtio", 0, false),
];

fn serves_the_paging_scenarios(example: &Example) {
    for (name, slots, repeats) in PAGED {
        let (outcome, sequence) = run(scenario(name), &[&example.with_slots(&["paging"], slots)]);
        let due = scenario(name).verdict.0;
        assert_eq!(outcome.verdict.kind, due, "{name}: {}\n{}", outcome.verdict, outcome.console);
        if repeats {
            let (_, own) = run(scenario(name), &[]);
            assert_eq!(waited_for(&sequence), waited_for(&own), "{} on {name}", example.command);
        }
    }
}

/// Without the answers that nobody waits for: they may come after the next request, or after the guest's end.
fn waited_for(sequence: &str) -> Vec<&str> {
    sequence.lines().filter(|line| !(line.starts_with("answer") && line.contains("FOREIGN"))).collect()
}

#[test]
fn the_pager_in_rust_serves_the_paging_scenarios() {
    serves_the_paging_scenarios(&Example::in_rust("pager"));
}

#[test]
fn the_pager_in_c_serves_the_paging_scenarios() {
    let Some(example) = Example::in_c("pager") else { return };
    serves_the_paging_scenarios(&example);
}

#[test]
fn the_pager_in_python_serves_the_paging_scenarios() {
    serves_the_paging_scenarios(&Example::in_python("pager"));
}

/// What the guest, its firmware and its 64 pages need is more than 320 frames, so loads are refused with ENOMEM again and again.
fn holds_a_guest_to_its_target(example: &Example) {
    let (outcome, sequence) = run(held_to(320), &[&example.with(&["paging", "sharing"])]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.console);
    let back = sequence.lines().filter(|line| line.starts_with("answer on paging")).count();
    assert!(back > 64, "each of the 64 pages came back, some twice: {back}");
    assert!(sequence.contains("answer on sharing"), "{sequence}");
}

/// Frames 0x500 to 0x50f fit into the file, and the other 48 pages do not.
fn keeps_what_fits_into_a_full_file(example: &Example) {
    let (outcome, sequence) = run(scenario("page_in"), &[&example.with(&["paging"])]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.console);
    let done = format!("{:?}", outcome.records);
    assert!(done.contains("page out 16 of 64 frames of PAGES"), "{done}");
    let failed = sequence.lines().filter(|line| line.contains("EVICT_FAIL")).count();
    assert!(failed >= 48, "those that were nominated and not kept come back where they are touched: {sequence}");
    let (outcome, _) = run(held_to(320), &[&example.with(&["paging", "sharing"])]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "a target that cannot be held is given up: {}", outcome.verdict);
}

/// Killed with all pages out while a vCPU waits for one of them; its successor finds file and request.
fn is_succeeded_by_another(example: &Example) {
    let external = External::parse(&example.with(&["paging"])).unwrap();
    let mut domain = Domain::of("page_in", None);
    domain.qemu.qmp.execute("cont").unwrap();
    crate::support::wait_for("the first checkpoint", &domain.toolstack);
    let mut first = domain.join_as(&external).unwrap();
    let order = Order::PageOut { first: Gfn(0x500), count: 64 };
    assert_eq!(first.order(order).unwrap(), 64);
    rustix::process::kill_process(first.pid(), rustix::process::Signal::STOP).unwrap();
    let waits = |report: &VcpuReport| report.state == VcpuState::Answer;
    while !domain.toolstack.vcpus().unwrap().iter().any(waits) {
        assert!(domain.go_on(Duration::from_millis(1)), "the guest ends without its pages");
    }
    first.kill();
    let _second = domain.join_as(&external).unwrap();
    while domain.go_on(Duration::from_secs(1)) {}
    domain.verdict();
}

fn does_what_a_pager_must(example: fn() -> Option<Example>) {
    let Some(pager) = example() else { return };
    holds_a_guest_to_its_target(&pager);
    is_succeeded_by_another(&pager);
    keeps_what_fits_into_a_full_file(&pager.with_a_file_below(0x510));
}

#[test]
fn the_pager_in_rust_holds_a_target_outlives_a_full_file_and_is_succeeded() {
    does_what_a_pager_must(|| Some(Example::in_rust("pager")));
}

#[test]
fn the_pager_in_c_holds_a_target_outlives_a_full_file_and_is_succeeded() {
    does_what_a_pager_must(|| Example::in_c("pager"));
}

#[test]
fn the_pager_in_python_holds_a_target_outlives_a_full_file_and_is_succeeded() {
    does_what_a_pager_must(|| Some(Example::in_python("pager")));
}

#[test]
fn the_built_in_pager_takes_orders_as_a_process_too() {
    let program = env!("CARGO_BIN_EXE_mem-event");
    let (outcome, sequence) = run(scenario("page_in"), &[&format!("paging={program} consumer pager")]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert_eq!(sequence, run(scenario("page_in"), &[]).1);
}

/// A pager that says that it is ready, and does this with the order that comes.
fn pager_that(does: &str) -> (RunFolder, String) {
    let folder = RunFolder::create().unwrap();
    let source = folder.file("pager.py");
    let text = format!(
        "import os, socket, time\n\
         at = lambda name: int(os.environ['MEM_EVENT_' + name])\n\
         os.write(at('READY_FD'), b'.')\n\
         orders = socket.socket(fileno=at('ORDERS_FD'))\n\
         orders.recv(256)\n{does}\n"
    );
    std::fs::write(&source, text).unwrap();
    (folder, format!("paging=python3 {}", source.display()))
}

#[test]
fn a_pager_that_does_not_carry_an_order_out_is_named_with_the_order() {
    for (does, said) in [
        ("orders.send(b'I do not page')", "to the order `page-out 1280 64`: I do not page"),
        ("orders.close(); time.sleep(600)", "closed MEM_EVENT_ORDERS_FD, at the order `page-out 1280 64`"),
    ] {
        let (_folder, command) = pager_that(does);
        let (outcome, _) = run(scenario("page_in"), &[&command]);
        assert_eq!(outcome.verdict.kind, Kind::Error, "{}", outcome.verdict);
        assert!(outcome.verdict.reason.contains(said), "{}", outcome.verdict);
    }
}

#[test]
fn a_pager_with_a_target_and_without_the_ring_that_tells_of_it_is_refused() {
    let mut held = held_to(320);
    held.consumers.external = vec![External::parse("paging=true").unwrap()];
    let refusal = Job::new(held, None).unwrap_err();
    assert!(refusal.remedy.contains("paging,sharing"), "{refusal}");
}

#[test]
fn a_command_starts_in_its_scenarios_folder_and_one_of_the_command_line_where_it_was_written() {
    let folder = RunFolder::create().unwrap();
    let scenarios = folder.file("scenarios");
    std::fs::create_dir(&scenarios).unwrap();
    let listener = |log: &str| {
        format!(
            "sh -c 'pwd >{log}; ls $MEM_EVENT_GUEST >>{log}; exec python3 {}'",
            examples().join("listener.py").display()
        )
    };
    let guest = folder.file("guest");
    let built_in = Job::new(scenario("page_fault"), None).unwrap().guest.unwrap().path;
    std::fs::copy(built_in, &guest).unwrap();
    let text = format!(
        "version = 1\nabout = \"x\"\n[machine]\nguest = \"../guest\"\n[[consumers.external]]\nrings = [\"access\"]\ncommand = \"\"\"{}\"\"\"\n",
        listener("log")
    );
    std::fs::write(scenarios.join("mine.toml"), text).unwrap();
    let here = scenarios.canonicalize().unwrap();
    let folder_path = folder.file("").canonicalize().unwrap();
    for (from, arguments) in [
        (&folder_path, ["run", "scenarios/mine.toml"]),
        (&folder_path, ["test", "scenarios/mine.toml"]),
        (&here, ["run", "mine.toml"]),
        (&here, ["test", "."]),
    ] {
        let output = crate::support::command(&folder).args(arguments).current_dir(from).output().unwrap();
        let log = std::fs::read_to_string(here.join("log"))
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}, {output:?}"));
        assert_eq!(log.lines().next(), here.to_str(), "{arguments:?}");
        assert_eq!(log.lines().count(), 2, "the guest's path holds there too: {log}");
        std::fs::remove_file(here.join("log")).unwrap();
    }
    let bare = "version = 1\nabout = \"x\"\n[machine]\nguest = \"../guest\"\n";
    std::fs::write(scenarios.join("bare.toml"), bare).unwrap();
    let consumer = format!("access={}", listener("log"));
    let arguments = ["run", "scenarios/bare.toml", "--consumer", consumer.as_str()];
    let output = crate::support::command(&folder).args(arguments).current_dir(&folder_path).output().unwrap();
    let log = std::fs::read_to_string(folder_path.join("log")).unwrap_or_else(|error| panic!("{error}, {output:?}"));
    assert_eq!(log.lines().next(), folder_path.to_str());
}

#[test]
fn a_process_is_killed_started_again_held_and_let_go_on_as_a_consumer_of_this_program_is() {
    let folder = RunFolder::create().unwrap();
    let listener = changed_example(&folder, "has | rights & RIGHTS", "7");
    let pager = Example::in_python("pager").with(&["paging"]);
    for name in ["listener_back", "listener_lost_unanswered"] {
        let judged = judged(name, &listener, Some(built_in(name)));
        assert_eq!(judged.verdict.kind, Kind::Success, "{name}: {}\n{}", judged.verdict, difference(&judged, false));
    }
    // What a process pages out stands on lines of its own: the sequence is another one.
    for name in ["pager_lost_with_pages_out", "pager_awaited"] {
        let (outcome, _) = run(scenario(name), &[&pager]);
        assert_eq!(outcome.verdict.kind, Kind::Success, "{name}: {}", outcome.verdict);
    }
}

#[test]
fn a_process_that_is_held_takes_no_request_until_it_is_let_go_on() {
    let text = "version = 1\nabout = \"held\"\n[machine]\nguest = \"crowd\"\nvcpus = 8\n[[steps]]\nat = 1\n\
                do = [{ hold = { consumer = \"listener\" } }, { set-access = { frames = \"CROWD\", access = \"n\" } }]\n\
                [[steps]]\nat = 2\ndo = [{ wait-until = { vcpus = 7, wait-for = \"answer\" } }, \
                { resume = { consumer = \"listener\" } }]\n";
    let held = Scenario::parse("held.toml".as_ref(), text.to_owned()).unwrap();
    let (outcome, _) = run(held, &[&Example::in_python("listener").with(&["access"])]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert_eq!(outcome.counts.access, 7, "each is answered once");
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
    let command = Example::in_python("listener").with(&["access"]);
    let mut rights = scenario("rights");
    rights.consumers.external = vec![External::parse(&command).unwrap()];
    let mut job = Job::new(rights, None).unwrap();
    job.trace = Some(folder.file("trace"));
    assert_eq!(job.run(&mut Silent, None).unwrap().verdict.kind, Kind::Success);
    assert!(replays(&folder.file("trace")) > 20);
}
