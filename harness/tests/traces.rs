//! A trace that was cut anywhere shows the steps before the cut and says where it ends.

use crate::support::{command, scenario};
use harness::machine::folder::RunFolder;
use harness::run::Job;
use harness::toolstack::log::Silent;
use harness::toolstack::transcript;
use harness::trace::replay::replay_file;
use rustix::fs::{CWD, FileType, Mode};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

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

/// What the command says of a trace that comes through a pipe, and its exit code.
fn piped(folder: &RunFolder, trace: &[u8], arguments: &[&str]) -> (Option<i32>, String) {
    let mut asked = command(folder);
    asked.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut asked = asked.spawn().unwrap();
    let mut input = asked.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // Who refuses what begins wrong does not read to the end.
        scope.spawn(move || drop(input.write_all(trace)));
        asked.wait_with_output().unwrap()
    });
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_trace_may_come_through_a_pipe() {
    let (folder, trace) = recorded("read_write");
    let file = folder.file("trace");
    for (arguments, code, says) in [
        (&["replay", "-"][..], 0, "no difference"),
        (&["show", "-"], 0, "WATCHED+0x10"),
        (&["show", "/dev/stdin", "--stats"], 0, "the listener's answer"),
        (&["diff", "-", file.to_str().unwrap()], 0, "equal in meaning"),
        (&["export", "-", "--to", "csv"], 0, "WATCHED+0x10"),
        (&["minimise", "-"], 5, "replays without a difference"),
    ] {
        let (exit, said) = piped(&folder, &trace, arguments);
        assert!(exit == Some(code) && said.contains(says), "{arguments:?}: {exit:?} {said}");
    }
    let (exit, said) = piped(&folder, b"no trace at all", &["show", "-"]);
    assert!(exit == Some(2) && said.contains("remedy: "), "{said}");
}

/// The lines before the first that is another.
fn is_part_of(part: &str, whole: &str) -> bool {
    part.is_empty() || whole.starts_with(part)
}

#[test]
fn no_command_shows_a_damaged_trace_as_right_or_panics_on_it() {
    let (folder, whole) = recorded("rights");
    let (trace, damaged) = (folder.file("trace"), folder.file("damaged"));
    let run = |arguments: &[&str], trace: &Path| {
        let output = command(&folder).arg(arguments[0]).arg(trace).args(&arguments[1..]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code().is_some_and(|code| code <= 5), "{arguments:?}: {} {said}", output.status);
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let show = ["show", "--json"];
    let csv = ["export", "--to", "csv"];
    let diff = ["diff", trace.to_str().unwrap()];
    let (rows, table) = (run(&show, &trace).1, run(&csv, &trace).1);
    // Every byte by itself is tried on the reader, in the engine's tests.
    for at in (0..whole.len()).step_by(whole.len() / 24) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        for (how, bytes) in [("flipped", flipped.as_slice()), ("cut", &whole[..at])] {
            std::fs::write(&damaged, bytes).unwrap();
            let shown = run(&show, &damaged).1;
            assert!(is_part_of(&shown, &rows), "{how} at {at}: {shown}");
            let exported = run(&csv, &damaged).1;
            assert!(is_part_of(&exported, &table), "{how} at {at}: {exported}");
            let (code, said) = run(&diff, &damaged);
            assert!(code != 0 || shown == rows, "{how} at {at}: equal, {said}");
            assert_ne!(run(&["minimise"], &damaged).0, 0, "{how} at {at} shows a difference");
        }
    }
}

#[test]
fn runs_of_one_scenario_are_equal_in_meaning_and_those_of_two_are_not() {
    let (first, _) = recorded("rights");
    let (second, _) = recorded("rights");
    let (other, _) = recorded("read_write");
    for (with, code, says) in [(&second, 0, "equal in meaning"), (&other, 5, "tracks part; ")] {
        let mut diff = command(&first);
        let output = diff.arg("diff").args([first.file("trace"), with.file("trace")]).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn a_difference_begins_with_its_summary_and_ends_at_its_limit() {
    let (first, _) = recorded("rights");
    let (other, _) = recorded("read_write");
    let diff = |limit: &str| {
        let traces = [first.file("trace"), other.file("trace")];
        let output = command(&first).arg("diff").args(traces).args(["--limit", limit]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (short, whole) = (diff("2"), diff("0"));
    let summary = |said: &str| said.split_once("\n\n").unwrap().0.to_owned();
    assert!(summary(&short).contains(" tracks part; ") && summary(&short).contains("  first "), "{short}");
    assert_eq!(summary(&short), summary(&whole));
    assert!(short.contains(" more lines of this track; --limit 0 shows all"), "{short}");
    assert!(!whole.contains("--limit") && whole.lines().count() > short.lines().count(), "{whole}");
}

#[test]
fn a_table_in_a_pipe_has_a_line_a_step_and_one_without_steps_says_so() {
    let (folder, _) = recorded("read_write");
    let show = |arguments: &[&str]| {
        let output = command(&folder).arg("show").arg(folder.file("trace")).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(show(&[]).lines().count(), show(&["--json"]).lines().count() + 1);
    let none = ["--where", "vcpu == 77"];
    assert!(show(&none).starts_with("none of the ") && show(&none).lines().count() == 1, "{}", show(&none));
    assert_eq!(show(&[&none[..], &["--json"]].concat()), "");
    let (folder, _) = recorded("example");
    let output = command(&folder).arg("show").arg(folder.file("trace")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("the trace has no step: 0 steps, ended in order"), "{said}");
}

/// As Chrome's description of trace events wants them: fields by kind, a name for each track, flows that begin and end.
fn are_trace_events(events: &[serde_json::Value]) {
    let has = |event: &serde_json::Value, fields: &[&str]| fields.iter().all(|field| !event[field].is_null());
    let track = |event: &serde_json::Value| (event["pid"].as_u64(), event["tid"].as_u64());
    let named: Vec<_> = events.iter().filter(|it| it["name"] == "thread_name").map(track).collect();
    let mut flows = std::collections::BTreeMap::<u64, String>::new();
    for event in events {
        let kind = event["ph"].as_str().unwrap();
        let fields: &[&str] = match kind {
            "M" => &["name", "pid", "args"],
            "X" => &["name", "pid", "tid", "ts", "dur", "cat", "args"],
            "C" => &["name", "pid", "ts", "args"],
            "i" => &["name", "pid", "tid", "ts", "s", "args"],
            "s" | "t" | "f" => &["name", "pid", "tid", "ts", "cat", "id"],
            other => panic!("an event of kind {other}"),
        };
        assert!(has(event, fields), "{event}");
        assert!(kind == "M" || event["ts"].as_f64().unwrap() >= 0.0, "{event}");
        assert!(kind != "X" || event["dur"].as_f64().unwrap() >= 0.0, "{event}");
        assert!(event["tid"].is_null() || named.contains(&track(event)), "a track without a name: {event}");
        if let Some(id) = event["id"].as_u64() {
            *flows.entry(id).or_default() += kind;
        }
    }
    assert!(flows.values().all(|parts| parts == "stf"), "{flows:?}");
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
    assert!(events.iter().any(|it| it["ph"] == "i" && it["name"] == "set-access"), "an act");
    assert!(
        events.iter().any(|it| it["cat"] == "request" && it["name"].as_str().unwrap().starts_with("violation vCPU 0"))
    );
    are_trace_events(events);

    let page = export("html");
    assert_eq!(page.matches("<rect class=\"answer-access\"").count(), 6);
    assert!(page.contains("mov rax, [rdi]") && page.contains("WATCHED"), "{page}");
    let elsewhere = ["http", "src=", "@import", "fetch("].into_iter().find(|it| page.contains(it));
    assert_eq!(elsewhere, None, "the page needs something from elsewhere");
    let static_part = page.split("<script").next().unwrap();
    assert!(
        static_part.contains("</svg>") && static_part.contains("The longest waits"),
        "it is readable without its script"
    );

    let steps = replay_file(&folder.file("trace"), false).unwrap().steps;
    let json: serde_json::Value = serde_json::from_str(&export("json")).unwrap();
    assert_eq!(json["steps"].as_array().unwrap().len() as u64, steps);
    assert_eq!(export("csv").lines().count() as u64, steps + 1);
}

#[test]
fn a_page_of_a_part_has_that_parts_axis_and_the_slots_of_before() {
    let (folder, _) = recorded("read_write");
    let run = |arguments: &[&str]| {
        let output = command(&folder).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let trace = folder.file("trace");
    let trace = trace.to_str().unwrap();
    let row = |step: &str| {
        let said = run(&["show", trace, "--json", "--where", &format!("step == {step}")]);
        serde_json::from_str::<serde_json::Value>(said.trim()).unwrap()
    };
    let waits = run(&["show", trace, "--json", "--where", "outcome ~ wait"]);
    let first: serde_json::Value = serde_json::from_str(waits.lines().next().unwrap()).unwrap();
    // From the step after the first request on: the ring was enabled before, and the wait had begun.
    let from = first["step"].as_u64().unwrap() + 1;
    let (begin, end) = (row(&from.to_string()), row(&(from + 4).to_string()));
    let page = run(&["export", trace, "--to", "html", "--between", &format!("{from}..{}", from + 4)]);
    let (begin, end) = (begin["time"].as_u64().unwrap(), end["time"].as_u64().unwrap());
    assert!(page.contains(&format!("data-from=\"{begin}\" data-span=\"{}\"", end - begin)), "{begin} {end}");
    assert!(page.contains("of 64 slots"), "the ring was enabled before");
    assert!(page.contains(&format!("data-b=\"{}\"", first["time"])), "the wait began before");
    assert!(!page.contains("never ended"), "what lasts when the part ends has its end after it");
}

#[test]
fn a_page_about_a_pager_shows_its_frames_and_the_lengths_of_waits() {
    let (folder, _) = recorded("page_in");
    let output = command(&folder).arg("export").arg(folder.file("trace")).args(["--to", "html"]).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    for part in ["What the pager did", "64 out", "64 in<", "0 in again", "resident", "the pager's answer", "p99 "] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_trace_into_a_pipe_or_a_device_takes_nothing_from_the_runs_own_record() {
    let folder = RunFolder::create().unwrap();
    let pipe = folder.file("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let run = |trace: Option<&Path>| {
        let mut job = Job::new(scenario("rights"), None).unwrap();
        job.trace = trace.map(Path::to_owned);
        let outcome = job.run(&mut Silent, None).unwrap();
        let sequence = transcript::text(&outcome.records, 1, &job.symbols());
        (outcome.verdict.to_string(), outcome.counts.access, sequence)
    };
    let own = run(None);
    assert!(own.1 > 0, "{own:?}");
    let (reader, copy) = (pipe.clone(), folder.file("copy"));
    let reader = std::thread::spawn(move || {
        let mut file = std::fs::File::open(reader).unwrap();
        std::io::copy(&mut file, &mut std::fs::File::create(copy).unwrap()).unwrap();
    });
    assert_eq!(run(Some(&pipe)), own);
    reader.join().unwrap();
    crate::support::replays(&folder.file("copy"));
    assert_eq!(run(Some(Path::new("/dev/null"))), own);
}
