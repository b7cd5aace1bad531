//! What a scenario can do to rings and consumers while its guest runs.

use harness::guest::symbols::Symbols;
use harness::refusal::Refusal;
use harness::run::{Job, Outcome};
use harness::scenario::Scenario;
use harness::toolstack::log::Silent;
use harness::verdict::{Kind, Verdict};
use std::path::Path;

/// The `page_in` guest with a listener and a pager, and these acts at its first checkpoint, when its pages are filled.
fn run(acts: &str) -> (Outcome, String) {
    let text = format!(
        "version = 1\nabout = \"acts\"\n[machine]\nguest = \"page_in\"\n[consumers.listener]\n[consumers.pager]\n\
         [[steps]]\nat = 1\ndo = [{acts}]\n"
    );
    let job = Job::new(Scenario::parse(Path::new("acts.toml"), text).unwrap(), None).unwrap();
    let outcome = job.run(&mut Silent, None).unwrap();
    let lines = outcome.records.iter().map(|record| record.line(&job.symbols()) + "\n").collect();
    (outcome, lines)
}

#[test]
fn what_must_be_refused_is_and_the_sequence_shows_the_error() {
    let (outcome, lines) =
        run("{ nominate = { frames = \"PAGES\" } }, { nominate = { frames = \"PAGES\", refused = \"EBUSY\" } }");
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert!(lines.starts_with("checkpoint 1  vcpu 0  -> nominate PAGES, nominate PAGES: EBUSY\n"), "{lines}");
    assert!(lines.contains("VCPU_PAUSED|EVICT_FAIL"), "{lines}");
}

#[test]
fn what_is_done_where_an_error_is_due_is_a_failure_and_so_is_another_error() {
    let (outcome, _) = run("{ nominate = { frames = \"PAGES\", refused = \"EBUSY\" } }");
    assert!(outcome.verdict.reason.contains("was done where EBUSY is due"), "{}", outcome.verdict);
    let (outcome, _) = run("{ evict = { frames = \"PAGES\", refused = \"EINVAL\" } }");
    assert_eq!(outcome.verdict.kind, Kind::Failure);
    assert!(outcome.verdict.reason.contains("was refused: EBUSY"), "{}", outcome.verdict);
}

/// The `read_write` guest, whose watched page nobody listens to.
fn watched_by_nobody(more: &str) -> Result<Job, Refusal> {
    let text = format!(
        "version = 1\nabout = \"acts\"\n{more}[machine]\nguest = \"read_write\"\n[[steps]]\nat = 1\n\
         do = [{{ watch = {{ frames = \"WATCHED\", stop = \"rw\" }} }}]\n"
    );
    Job::new(Scenario::parse(Path::new("acts.toml"), text).unwrap(), None)
}

#[test]
fn a_watch_without_a_listener_is_refused_before_the_guest_starts_and_a_relaxed_one_passes() {
    let refusal = watched_by_nobody("").unwrap_err();
    assert_eq!(refusal.exit_code(), 2, "no lack of the machine: {refusal}");
    assert!(refusal.shown.as_ref().unwrap().contains("--> acts.toml:7:28"), "{refusal:?}");
    let relaxed = "rings.access.no-consumer = \"relax\"\n";
    let outcome = watched_by_nobody(relaxed).unwrap().run(&mut Silent, None).unwrap();
    assert_eq!((outcome.verdict.kind, outcome.counts.access), (Kind::Success, 0), "{}", outcome.verdict);
}

#[test]
fn a_watched_page_without_a_listener_stops_its_vcpu_until_the_deadline() {
    let to_wait_in_vain = "verdict = \"failure\"\ndeadline = \"2s\"\n";
    let outcome = watched_by_nobody(to_wait_in_vain).unwrap().run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Failure, "{}", outcome.verdict);
    assert!(outcome.verdict.reason.contains(" s for a consumer on the access ring"), "{}", outcome.verdict);
}

#[test]
fn a_refused_step_is_no_success_however_soon_the_guest_ends() {
    // The last checkpoint: the guest goes on when the connection that holds it there is gone, and ends with its own verdict.
    let text = "version = 1\nabout = \"acts\"\n[machine]\nguest = \"read_write\"\n[consumers.listener]\n[[steps]]\nat = 3\n\
                do = [{ watch = { frames = \"0xa0\", stop = \"r\" } }]\n";
    let job = Job::new(Scenario::parse(Path::new("acts.toml"), text.into()).unwrap(), None).unwrap();
    let verdict = match job.run(&mut Silent, None) {
        Ok(outcome) => outcome.verdict,
        Err(error) => Verdict::new(Kind::Error, format!("{error:#}")),
    };
    assert_eq!(verdict.kind, Kind::Error, "{verdict}");
    assert!(verdict.reason.contains("frames 0xa0 to 0xff"), "{verdict}");
}

#[test]
fn a_listener_that_was_killed_joins_again_and_hears_of_the_next_access() {
    let acts = "{ watch = { frames = \"PAGES\", stop = \"rw\" } }, { kill = { consumer = \"listener\" } }, \
                { join = { consumer = \"listener\" } }";
    let (outcome, lines) = run(acts);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert_eq!(outcome.counts.access, 64, "{lines}");
}

#[test]
fn a_ring_that_ends_and_relaxes_lets_the_guest_go_on_without_events() {
    let acts = "{ no-consumer = { ring = \"access\", policy = \"relax\" } }, { disable = { ring = \"access\" } }, \
                { watch = { frames = \"PAGES\", stop = \"rw\" } }";
    let (outcome, lines) = run(acts);
    assert_eq!((outcome.verdict.kind, outcome.counts.access), (Kind::Success, 0), "{}\n{lines}", outcome.verdict);
}

#[test]
fn a_wait_for_vcpus_that_wait_already_ends_at_once() {
    let (outcome, lines) = run("{ wait-until = { vcpus = 1, wait-for = \"checkpoint\" } }");
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert!(lines.contains("1 vCPUs wait for checkpoint"), "{lines}");
}

/// The `touch` guest, and nothing but a step there.
fn job_with_a_step(at: &str) -> Result<Job, Refusal> {
    let text = format!("version = 1\nabout = \"x\"\n[machine]\nguest = \"touch\"\n[[steps]]\nat = \"{at}\"\n");
    Job::new(Scenario::parse(Path::new("places.toml"), text).unwrap(), None)
}

#[test]
fn a_place_that_the_program_does_not_come_to_is_told_and_so_is_one_that_is_not_there() {
    let outcome = job_with_a_step("trampoline").unwrap().run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.to_string(), "error: place trampoline was never reached");
    let refusal = job_with_a_step("acces_read").unwrap_err().shown.unwrap();
    assert!(refusal.contains("--> places.toml:6:6") && refusal.contains("access_read"), "{refusal}");
}

#[test]
fn a_place_stops_vcpus_also_where_no_access_is_watched() {
    let outcome = job_with_a_step("gpa:0x100000").unwrap().run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert_eq!(outcome.records[0].line(&Symbols::default()), "place 0x100000  vcpu 0  -> nothing");
}

#[test]
fn a_trap_that_cannot_be_injected_fails_the_scenario_with_the_reason() {
    let text = "version = 1\nabout = \"inject\"\n[machine]\nguest = \"page_in\"\n[[steps]]\nat = 1\n\
                do = [{ inject = { vcpu = 7, vector = 14 } }]\n";
    let job = Job::new(Scenario::parse(Path::new("inject.toml"), text.into()).unwrap(), None).unwrap();
    let verdict = job.run(&mut Silent, None).unwrap().verdict;
    assert_eq!(verdict.kind, Kind::Failure);
    assert!(verdict.reason.contains("trap 14") && verdict.reason.contains("ESRCH"), "{verdict}");
}
