//! `doctor` and `list`: what people and programs read of them.

use crate::support::{command, kernel_maps_write_protected};
use harness::machine::folder::RunFolder;
use harness::scenario::corpus;

#[test]
fn doctor_finds_nothing_lacking_where_the_other_tests_run() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["doctor", "--json"]).output().unwrap();
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{checks:#}");
    for name in
        ["qemu", "qemu version", "qemu plugins", "plugin", "userfaultfd", "memory files", "guests", "linux kernel"]
    {
        let check = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).unwrap();
        assert_eq!(check["ok"], true, "{check}");
    }
}

#[test]
fn doctor_says_whether_the_hosts_mmu_can_be_the_gate_and_what_to_do_if_not() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["doctor", "--json"]).output().unwrap();
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == "gate=mmu").unwrap();
    if kernel_maps_write_protected() {
        assert_eq!((&row["ok"], &row["remedy"]), (&true.into(), &"".into()), "{row}");
    } else {
        assert!(row["ok"].is_null() && row["remedy"].as_str().unwrap().contains("gate=callback works"), "{row}");
    }
}

#[test]
fn doctor_names_each_lack_with_its_remedy() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).arg("doctor").env("PATH", "/nowhere").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    let mut lines = said.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("LACK") {
            assert!(lines.next().is_some_and(|remedy| remedy.starts_with("     ")), "{line} has no remedy");
        }
    }
    assert!(said.contains("LACK qemu"), "{said}");
}

#[test]
fn list_names_every_scenario_and_every_guest() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).arg("list").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for scenario in corpus::all() {
        let guest = &scenario.machine.guest;
        let line = |line: &&str| line.split_whitespace().next() == Some(guest);
        assert!(said.lines().take_while(|line| *line != "scenarios:").any(|it| line(&it)), "no {guest} in {said}");
        assert!(
            said.lines().any(|line| line.trim().starts_with(&scenario.name) && line.contains(scenario.title())),
            "{said}"
        );
    }
}

#[test]
fn a_piped_run_is_quiet_and_a_json_run_is_lines_of_json() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["run", "page_fault"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("page_fault: success\n") && !said.contains("WATCHED"), "{said}");
    let output = command(&folder).args(["run", "page_fault", "--json"]).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["checkpoint", "access", "access", "checkpoint", "summary"]);
    assert_eq!(lines[4]["verdict"], "success");
    assert_eq!(lines[1]["symbol"], "WATCHED+0x10");
}

#[test]
fn doctor_shows_what_the_plugin_can_do_in_a_qemu() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["doctor", "--json"]).output().unwrap();
    let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = checks["checks"].as_array().unwrap();
    for name in ["leaving callbacks", "leaving the kernel", "unwinding", "dropping blocks", "flags", "fields"] {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no row for {name} in {checks:#}"));
        assert!(row["found"] == "there" || row["remedy"].as_str().unwrap().starts_with("so "), "{row}");
    }
}

/// Forbids what opens a userfaultfd, to root, too, and runs the words after it: what engines of containers do by default, and a machine
/// without the device.
const FORBIDDEN: &str = r"
import ctypes, os, struct, sys
SYSCALL, IOCTL, NEW, NUMBER, SECOND_ARGUMENT = 323, 16, 0xaa00, 0, 24
LOAD, IF_EQUAL, RETURN, ALLOW, EPERM = 0x20, 0x15, 0x06, 0x7fff0000, 0x00050001
rules = [
    (LOAD, 0, 0, NUMBER), (IF_EQUAL, 3, 0, SYSCALL), (IF_EQUAL, 0, 3, IOCTL),
    (LOAD, 0, 0, SECOND_ARGUMENT), (IF_EQUAL, 0, 1, NEW), (RETURN, 0, 0, EPERM), (RETURN, 0, 0, ALLOW),
]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
assert libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
";

/// Regression: to root `doctor` said that userfaultfd was there, and nothing could be paged.
#[test]
fn doctor_tells_in_a_container_what_its_engine_forbids_to_root_too_and_the_option_that_allows_it() {
    let folder = RunFolder::create().unwrap();
    let script = folder.file("forbidden.py");
    std::fs::write(&script, FORBIDDEN).unwrap();
    for (kind, option) in [("podman", "podman run --device /dev/userfaultfd"), ("nspawn", "a container (nspawn)")] {
        let mut forbidden = std::process::Command::new("python3");
        forbidden.arg(&script).arg(env!("CARGO_BIN_EXE_mem-event")).args(["doctor", "--json"]).env("container", kind);
        let output = forbidden.output().unwrap();
        let checks: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = checks["checks"].as_array().unwrap().iter().find(|check| check["name"] == "userfaultfd").unwrap();
        assert_eq!((output.status.code(), &row["ok"]), (Some(3), &false.into()), "{row}");
        assert!(row["found"].as_str().unwrap().contains("no right to open a userfaultfd"), "{row}");
        assert!(row["remedy"].as_str().unwrap().contains(option), "{row}");
    }
}
