//! `flow`: one guest, or a recorded run's events, under the four flow controls.

use crate::support::command;
use harness::machine::folder::RunFolder;
use serde_json::Value;

/// A line of JSON for each flow control, in the order in which they are told.
fn told(arguments: &[&str]) -> Vec<Value> {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).arg("flow").args(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let runs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let flows: Vec<&str> = runs.iter().map(|run| run["flow"].as_str().unwrap()).collect();
    assert_eq!(flows, ["queue", "check-ring", "wait-queue-v5", "blocked-2012"]);
    runs
}

fn hung(run: &Value) -> usize {
    run["hung"].as_array().unwrap().len()
}

fn recorded(name: &str) -> String {
    format!("{}/../snapshots/traces/{name}.trace", env!("CARGO_MANIFEST_DIR"))
}

fn storm() -> String {
    recorded("smp_storm")
}

/// When a run whose vCPUs hang is given up; the others end long before.
const DEADLINE: &str = "10s";

#[test]
fn a_recorded_storm_hangs_under_the_patch_in_every_schedule_and_under_no_other() {
    for seed in ["1", "2", "3", "4", "5"] {
        let runs = told(&[&storm(), "--slots", "2", "--seed", seed]);
        assert_eq!([0, 1, 3].map(|at| hung(&runs[at])), [0; 3], "seed {seed}");
        assert!(hung(&runs[2]) > 0, "seed {seed}: {}", runs[2]);
        assert_eq!([0, 1, 3].map(|at| runs[at]["events"].as_u64().unwrap()), [128; 3], "seed {seed}");
        assert_eq!(runs[0]["in_vain"], 0, "seed {seed}");
        assert!(runs[1]["in_vain"].as_u64() > runs[3]["in_vain"].as_u64(), "everybody is woken: {}", runs[1]);
    }
}

#[test]
fn a_schedule_is_the_same_each_time_and_its_traces_replay() {
    let folder = RunFolder::create().unwrap();
    let path = folder.file("").to_str().unwrap().to_owned();
    let once = told(&[&storm(), "--slots", "2", "--seed", "7", "--traces", &path]);
    assert_eq!(once, told(&[&storm(), "--slots", "2", "--seed", "7"]));
    for run in once {
        let trace = folder.file(&format!("{}.trace", run["flow"].as_str().unwrap()));
        assert!(command(&folder).arg("replay").arg(trace).output().unwrap().status.success(), "{run}");
    }
}

#[test]
fn a_guest_with_eight_vcpus_ends_under_all_but_the_patch() {
    let runs = told(&["smp_storm", "--slots", "1", "--deadline", DEADLINE]);
    for at in [0, 1, 3] {
        assert_eq!((runs[at]["ended"].as_str(), hung(&runs[at])), (Some("success"), 0), "{}", runs[at]);
    }
    assert!(hung(&runs[2]) > 0 && runs[2]["ended"] != "success", "{}", runs[2]);
}

#[test]
fn the_page_has_four_time_lines_and_what_hangs() {
    let folder = RunFolder::create().unwrap();
    let page = folder.file("flow.html");
    let output = command(&folder).arg("flow").args([&storm(), "--slots", "2", "--page"]).arg(&page).output().unwrap();
    assert!(output.status.success());
    let text = std::fs::read_to_string(page).unwrap();
    assert_eq!(text.matches("<svg").count(), 4);
    assert!(text.contains("<rect class=\"endless\""), "the hung vCPUs are drawn");
    assert!(text.contains("<h2>wait-queue-v5</h2>"));
}

#[test]
fn before_the_patch_writes_of_registers_are_lost_and_by_the_patch_their_vcpu_hangs() {
    for seed in ["1", "2", "3", "4", "5"] {
        let runs = told(&[&recorded("cpu_events"), "--slots", "1", "--seed", seed]);
        let counts = |at: usize| ["events", "lost"].map(|name| runs[at][name].as_u64().unwrap());
        let [[made, none], [came, lost], _, since] = [0, 1, 2, 3].map(counts);
        assert_eq!((none, since), (0, [made, 0]), "seed {seed}");
        assert_eq!(came + lost, made, "seed {seed}: what is lost is not made again");
    }
    let lost = |seed: &str| told(&[&recorded("cpu_events"), "--slots", "1", "--seed", seed])[1]["lost"].as_u64();
    assert!(["1", "2", "3", "4", "5"].iter().any(|seed| lost(seed) > Some(0)));
}

#[test]
fn the_notice_of_a_dropped_frame_is_lost_on_a_full_ring_under_all_but_the_queue_which_refuses_it() {
    let runs = told(&["balloon_on_full_ring", "--deadline", DEADLINE]);
    let counts = |run: &Value| ["lost", "refused"].map(|name| run[name].as_u64().unwrap());
    assert_eq!((counts(&runs[0]), &runs[0]["ended"]), ([0, 1], &Value::from("success")));
    for run in &runs[1..] {
        assert_eq!(counts(run), [1, 0], "the pager keeps a frame that is no more: {run}");
    }
}

#[test]
fn a_disable_leaves_the_sleepers_of_2011_asleep() {
    let runs = told(&["disable_busy", "--deadline", DEADLINE]);
    assert_eq!([0, 3].map(|at| (hung(&runs[at]), runs[at]["ended"].as_str())), [(0, Some("success")); 2]);
    assert_eq!([1, 2].map(|at| hung(&runs[at])), [3, 3], "{} {}", runs[1], runs[2]);
}
