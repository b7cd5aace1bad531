//! A trace that was cut anywhere shows the steps before the cut and says where it ends.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::folder::RunFolder;
use harness::log::Silent;
use harness::replay::replay_file;
use harness::run::Job;
use support::{command, scenario};

fn recorded(name: &str) -> (RunFolder, Vec<u8>) {
    let folder = RunFolder::create().expect("a folder");
    let mut job = Job::new(scenario(name), None).expect("a guest and a QEMU");
    job.trace = Some(folder.file("trace"));
    job.run(&mut Silent, None).expect("a verdict");
    let bytes = std::fs::read(folder.file("trace")).expect("the trace");
    (folder, bytes)
}

#[test]
fn a_trace_cut_at_any_byte_shows_the_steps_before_the_cut() {
    let (folder, whole) = recorded("rights");
    let cut = folder.file("cut");
    let all = replay_file(&folder.file("trace"), true).expect("a trace");
    let mut steps = 0;
    for length in 0..=whole.len() {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let Ok(replayed) = replay_file(&cut, true) else {
            assert_eq!(steps, 0, "a trace of {length} bytes is none, a shorter one was");
            continue;
        };
        assert_eq!(replayed.exit_code(), 0, "{length} bytes: {}", replayed.report());
        assert!(replayed.steps >= steps, "{length} bytes show fewer steps than one byte less");
        assert!(all.sequence.starts_with(&replayed.sequence), "{length} bytes show another sequence");
        assert!(replayed.report().contains("byte"), "it says where it ends: {}", replayed.report());
        steps = replayed.steps;
    }
    assert_eq!(steps, all.steps);
}

#[test]
fn a_trace_with_a_damaged_byte_is_never_shown_as_right() {
    let (folder, whole) = recorded("page_fault");
    let damaged = folder.file("damaged");
    let all = replay_file(&folder.file("trace"), true).expect("a trace");
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&damaged, &bytes).unwrap();
        let Ok(replayed) = replay_file(&damaged, true) else { continue };
        assert_ne!(replayed.report(), all.report(), "byte {at} is damaged, and the trace looks whole");
        assert!(all.sequence.starts_with(&replayed.sequence), "byte {at} changes a step that is shown");
    }
}

#[test]
fn a_trace_that_cannot_be_written_ends_with_a_line_and_the_run_goes_on() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["run", "read_write", "--trace", "/dev/full"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].starts_with("mem-event: the trace /dev/full ends here, and the run goes on: No space"), "{said}");
}

#[test]
fn the_header_says_what_ran_where() {
    let (folder, _) = recorded("read_write");
    let trace = replay_file(&folder.file("trace"), false).unwrap();
    let header = &trace.header;
    assert_eq!((header.guest.as_str(), header.guest_hash.len()), ("read_write", 8));
    assert!(header.qemu.starts_with(|digit: char| digit.is_ascii_digit()), "{}", header.qemu);
    assert!(header.scenario.contains("set-access = { frames = \"WATCHED\""), "{}", header.scenario);
    assert!(header.symbols.iter().any(|symbol| symbol.name.ends_with("WATCHED")));
    for name in ["gate", "host kernel", "command", "image"] {
        assert!(header.facts.iter().any(|(it, value)| it == name && !value.is_empty()), "{:?}", header.facts);
    }
}

#[test]
fn show_selects_steps_and_names_what_they_are_about() {
    let (folder, _) = recorded("read_write");
    let show = |arguments: &[&str]| {
        let output = command(&folder).arg("show").arg(folder.file("trace")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let all = show(&["--json"]).lines().count();
    let of_page = show(&["--gfn", "WATCHED"]);
    assert!(of_page.contains("WATCHED+0x10") && of_page.contains("mov rax, [rdi]"), "{of_page}");
    for (filter, part) in [
        (vec!["--vcpu", "0"], "\"vcpu\":0"),
        (vec!["--ring", "access"], "access"),
        (vec!["--kind", "kick,enable"], "\"ring\":\"access\""),
        (vec!["--between", "3..5"], "\"step\":4"),
        (vec!["--where", "outcome ~ wait and gfn == 0x502"], "wait: answer on access"),
        (vec!["--where", "wait > 1ns"], "wait: answer on access"),
    ] {
        let selected = show(&[&filter[..], &["--json"]].concat());
        let count = selected.lines().count();
        assert!(count > 0 && count < all && selected.contains(part), "{filter:?} selects {count}: {selected}");
    }
    let stats = show(&["--stats"]);
    assert!(stats.contains("the listener's answer") && stats.contains("slots used"), "{stats}");
    let stats: serde_json::Value = serde_json::from_str(&show(&["--stats", "--json"])).unwrap();
    assert_eq!(stats["rings"][0]["requests"], 6);
    assert!(show(&["--header"]).contains("guest     read_write"));
}

#[test]
fn filters_that_cannot_be_understood_are_refused_with_a_remedy() {
    let (folder, _) = recorded("example");
    for wrong in [["--gfn", "0x5.."], ["--ring", "rung"], ["--between", "5"], ["--where", "vcpu is 1"]] {
        let output = command(&folder).arg("show").arg(folder.file("trace")).args(wrong).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {said}");
        assert!(said.contains("remedy: "), "{said}");
    }
}

#[test]
fn a_trace_replays_from_a_pipe() {
    let (folder, _) = recorded("read_write");
    let file = std::fs::File::open(folder.file("trace")).unwrap();
    let output = command(&folder).args(["replay", "-"]).stdin(file).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no difference"));
}

#[test]
fn runs_of_one_scenario_are_equal_in_meaning_and_those_of_two_are_not() {
    let (first, _) = recorded("rights");
    let (second, _) = recorded("rights");
    let (other, _) = recorded("read_write");
    for (with, code, says) in [(&second, 0, "equal in meaning"), (&other, 5, "the traces part first in")] {
        let mut diff = command(&first);
        let output = diff.arg("diff").args([first.file("trace"), with.file("trace")]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn an_export_holds_every_wait_and_needs_nothing_else() {
    let (folder, _) = recorded("read_write");
    let export = |format: &str| {
        let output = command(&folder).arg("export").arg(folder.file("trace")).args(["--to", format]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let perfetto: serde_json::Value = serde_json::from_str(&export("perfetto")).unwrap();
    let events = perfetto["traceEvents"].as_array().unwrap();
    let count = |ph: &str, cat: &str| events.iter().filter(|it| it["ph"] == ph && it["cat"] == cat).count();
    assert_eq!((count("X", "wait"), count("X", "request")), (6, 6));
    assert_eq!((count("s", "flow"), count("t", "flow"), count("f", "flow")), (6, 6, 6));
    assert!(events.iter().any(|it| it["name"] == "free slots of access" && it["args"]["free"] == 63));

    let page = export("html");
    assert_eq!(page.matches("<rect class=\"answer-access\"").count(), 6);
    assert!(page.contains("mov rax, [rdi]") && page.contains("WATCHED"), "{page}");
    assert!(!page.contains("http") && !page.contains("<script"), "the page needs something from elsewhere");

    let steps = replay_file(&folder.file("trace"), false).unwrap().steps;
    let json: serde_json::Value = serde_json::from_str(&export("json")).unwrap();
    assert_eq!(json["steps"].as_array().unwrap().len() as u64, steps);
    assert_eq!(export("csv").lines().count() as u64, steps + 1);
}
