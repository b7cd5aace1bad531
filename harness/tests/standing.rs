//! How a long run stands: one line on a terminal, and nothing anywhere else.

use crate::support::command;
use crate::support::terminal::{read_until, spawn_on, terminal};
use harness::machine::folder::RunFolder;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// What every such line has.
const RATE: &str = " events a second | ";

/// What was drawn, up to the end of the command, which was the only other one there.
fn rest_of(mut drawn: File, theirs: OwnedFd) -> String {
    drop(theirs);
    let mut bytes = Vec::new();
    // A terminal that nobody has at its other end cannot be read.
    let _ = drawn.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_long_run_has_one_line_on_a_terminal_with_its_time_its_events_and_what_the_guest_holds() {
    let folder = RunFolder::create().unwrap();
    let (mut drawn, theirs) = terminal((120, 24));
    let mut run = command(&folder);
    run.args(["run", "endless", "--paging-target", "8M", "--deadline", "120s"]).env("TERM", "xterm");
    let mut child = spawn_on(&theirs, run);
    let seen = read_until(&mut drawn, " MiB resident of 8.0 MiB");
    let line = seen.rsplit('\r').find(|line| line.contains(RATE)).unwrap();
    assert!(line.contains(" s of 120 s | "), "{line:?}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let rest = rest_of(drawn, theirs);
    assert_eq!(child.wait().unwrap().code(), Some(4), "{rest}");
    let (_, summary) = rest.split_once("endless: error: interrupted by a signal").unwrap();
    assert!(!summary.contains(RATE), "the line has gone before the summary: {summary:?}");
}

#[test]
fn where_nobody_sits_at_a_terminal_there_is_no_line() {
    let folder = RunFolder::create().unwrap();
    let run = |further: &[&str]| {
        let mut run = command(&folder);
        run.args(["run", "endless", "--deadline", "2s"]).args(further).env("TERM", "xterm");
        run
    };
    let (in_ci, ci_end) = terminal((120, 24));
    let (as_json, json_end) = terminal((120, 24));
    let mut for_ci = run(&[]);
    for_ci.env("CI", "true");
    let mut ci = spawn_on(&ci_end, for_ci);
    let mut json = spawn_on(&json_end, run(&["--json"]));
    let piped = run(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&piped.stdout).into_owned() + &String::from_utf8_lossy(&piped.stderr);
    for (child, said) in
        [(None, said), (Some(&mut ci), rest_of(in_ci, ci_end)), (Some(&mut json), rest_of(as_json, json_end))]
    {
        let code = child.map_or(piped.status.code(), |child| child.wait().unwrap().code());
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains("the deadline of 2s passed") && !said.contains(RATE), "{said:?}");
    }
}
