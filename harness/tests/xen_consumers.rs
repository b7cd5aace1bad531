//! Tools of Xen's as consumers of a run.

use crate::support::command;
use crate::support::xen::releases;
use harness::machine::folder::RunFolder;

/// A scenario with xen-access, run by the command line as its file says.
fn run(tool: &str, more: &str) -> (Option<i32>, String) {
    let folder = RunFolder::create().unwrap();
    let file = folder.file("mine.toml");
    let text = format!(
        "version = 1\nabout = \"Writes\"\n\n[machine]\nguest = \"read_write\"\n\n[[consumers.xen]]\ncommand = \"{tool}\"\n{more}"
    );
    std::fs::write(&file, text).unwrap();
    let output = command(&folder).arg("run").arg(&file).arg("--sequence").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn xen_access_is_a_scenarios_listener_and_its_events_are_in_the_sequence() {
    for version in ["4.17", "4.20"] {
        if !releases("xen-access").iter().any(|release| release.program.to_string_lossy().contains(version)) {
            eprintln!("skipped: there is no xen-access of {version}");
            continue;
        }
        let (code, said) = run("xen-access 1 write", &format!("version = \"{version}\"\n"));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("WATCHED"), "{said}");
        assert!(said.contains("PAGE ACCESS: "), "{said}");
    }
}

#[test]
fn a_tool_that_cannot_do_what_it_is_told_fails_the_run_in_its_own_words() {
    if releases("xen-access").is_empty() {
        return;
    }
    let (code, said) = run("xen-access 1 altp2m_write_no_gpt", "");
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("setting inguest pagefault"), "{said}");
}

#[test]
fn the_command_line_gives_a_guest_to_a_tool_and_one_that_is_done_at_once_is_in_order() {
    for (tool, code, due) in [("xen-access 1 write", 0, "PAGE ACCESS: "), ("xen-hvmctx 1", 0, "CPU: ")] {
        if releases(tool.split(' ').next().unwrap()).is_empty() {
            continue;
        }
        let folder = RunFolder::create().unwrap();
        let output = command(&folder).args(["run", "read_write", "--xen-tool", tool]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(due), "{said}");
    }
}
