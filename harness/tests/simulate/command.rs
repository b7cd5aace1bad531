//! `simulate` as it is typed: outputs, a recorded run, and mistakes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mem-event"));
    command.arg("simulate").args(arguments).output().expect("the command")
}

fn printed(arguments: &[&str]) -> String {
    let output = simulate(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn recorded() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/traces/smp_storm.trace");
    path.to_str().expect("a path of text").to_owned()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn the_same_seed_writes_the_same_bytes_however_many_cores_there_are() {
    let arguments = ["--vcpus", "40", "--slots", "8", "--foreign", "2", "--loss", "0.001", "--events", "5k"];
    for output in [&["--json"][..], &["--csv", "-"], &["--html", "-"], &["--sweep", "vcpus=1..32", "--csv", "-"]] {
        let typed = [&arguments[..], output].concat();
        let text = printed(&typed);
        assert_eq!(text, printed(&typed), "{output:?}");
        assert_ne!(text, printed(&[&typed[..], &["--seed", "2"]].concat()), "{output:?}");
    }
}

#[test]
fn json_has_a_line_a_policy_and_csv_as_many_cells_as_its_header() {
    let lines: Vec<serde_json::Value> =
        printed(&["--events", "1k", "--json"]).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let policies: Vec<&str> = lines.iter().filter_map(|line| line["policy"].as_str()).collect();
    assert_eq!(policies, ["check-ring", "wait-queue-v5", "blocked-2012", "queue"]);
    let csv = printed(&["--events", "1k", "--sweep", "service=1us,1ms", "--csv", "-"]);
    let cells: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(cells.len() == 9 && cells.iter().all(|count| *count == cells[0]), "{csv}");
    assert!(csv.lines().nth(5).is_some_and(|line| line.starts_with("2,service,1000000,check-ring,")), "{csv}");
}

#[test]
fn a_page_of_a_sweep_draws_each_policy_and_needs_nothing_from_elsewhere() {
    let page = file("sweep.html");
    let text =
        printed(&["--events", "2k", "--slots", "8", "--sweep", "vcpus=1..64", "--html", page.to_str().expect("text")]);
    assert!(text.starts_with("vcpus varied; else "), "{text}");
    let page = std::fs::read_to_string(page).expect("the page");
    for policy in ["check-ring", "wait-queue-v5", "blocked-2012", "queue"] {
        assert_eq!(page.matches(&format!("<g class=\"{policy}\">")).count(), 10, "{policy}");
    }
    assert!(!page.contains("NaN") && !page.contains("http"), "{page}");
}

#[test]
fn a_recorded_run_is_scaled_to_as_many_vcpus_as_are_asked_for() {
    let trace = recorded();
    let lines = printed(&["--from", &trace, "--vcpus", "64", "--events", "5k", "--policy", "queue", "--json"]);
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (&lines[0]["event"], &lines[0]["vcpus"], &lines[0]["events"]),
        (&"recorded".into(), &8.into(), &128.into())
    );
    assert_eq!((&lines[1]["vcpus"], &lines[1]["slots"], &lines[1]["hung"]), (&64.into(), &4.into(), &0.into()));
    assert!(lines[1]["stopped"]["p50"].as_u64() > lines[0]["stopped"]["p50"].as_u64(), "{lines:?}");
}

#[test]
fn a_mistake_is_told_with_what_to_do_and_exit_code_2() {
    let trace = recorded();
    let read_only = "/nowhere/page.html";
    let mistakes: [(&[&str], &str); 14] = [
        (&["--policy", "qeue"], "did you mean queue?"),
        (&["--vcpus", "5000"], "a number from 0 to 4096"),
        (&["--vcpus", "many"], "is no number"),
        (&["--vcpus", "0"], "give --vcpus or --foreign"),
        (&["--slots", "0"], "a number from 1 to 4096"),
        (&["--think", "3"], "is no time with a unit"),
        (&["--loss", "2"], "from 0 to 1"),
        (&["--notices", "0.6", "--drops", "0.6"], "from 0 to 1"),
        (&["--sweep", "vcpu=1..4"], "did you mean vcpus?"),
        (&["--sweep", "slots=0..8+1"], "a number from 1 to 4096"),
        (&["--from", "/nowhere"], "cannot read the trace"),
        (&["--from", &trace, "--sweep", "think=1us..2us"], "the trace says how long vCPUs work"),
        (&["--html", read_only], "name a file that can be written"),
        (&["--csv", "-", "--json"], "cannot share the standard output"),
    ];
    for (typed, what) in mistakes {
        let output = simulate(typed);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(what), "{typed:?}: {text}");
    }
}
