//! Names and places as other people have them: paths that are no UTF-8, a long folder for temporary files, files that cannot be written.

use crate::support::command;
use harness::machine::folder::RunFolder;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Output;

const SCENARIO: &str = "version = 1\nabout = \"x\"\n[machine]\nguest = \"example\"\n";

fn run(folder: &RunFolder, arguments: &[&OsStr]) -> Output {
    command(folder).args(arguments).output().unwrap()
}

fn test(folder: &RunFolder, path: &Path, more: &[&OsStr]) -> (Option<i32>, String) {
    let arguments: Vec<&OsStr> =
        [OsStr::new("test"), path.as_os_str()].into_iter().chain(more.iter().copied()).collect();
    let output = run(folder, &arguments);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

fn folder_of_scenarios(folder: &RunFolder, name: &OsStr, scenarios: &[&str]) -> PathBuf {
    let path = folder.file("work").join(name);
    std::fs::create_dir_all(&path).unwrap();
    for scenario in scenarios {
        std::fs::write(path.join(format!("{scenario}.toml")), SCENARIO).unwrap();
    }
    path
}

/// The command once asked for its own arguments as UTF-8, and QEMU was told a path with other bytes.
#[test]
fn a_path_may_be_any_bytes() {
    let folder = RunFolder::create().unwrap();
    let scenarios = folder_of_scenarios(&folder, OsStr::from_bytes(b"b\xfcro, 2"), &["a"]);
    let trace = scenarios.join("x.trace");
    let output = run(&folder, &["run".as_ref(), "read_write".as_ref(), "--trace".as_ref(), trace.as_os_str()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::metadata(&trace).unwrap().len() > 0);
    let (code, said) = test(&folder, &scenarios, &["--accept".as_ref()]);
    assert_eq!(code, Some(0), "{said}");
    let report = scenarios.join("junit.xml");
    let (code, said) = test(&folder, &scenarios, &["--junit".as_ref(), report.as_os_str()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(report.exists());
}

/// A socket's path has at most 107 bytes.
#[test]
fn temporary_files_may_lie_in_a_folder_with_a_long_name() {
    let folder = RunFolder::create().unwrap();
    let long = folder.file(&"d".repeat(80)).join("e".repeat(70));
    std::fs::create_dir_all(&long).unwrap();
    let output = command(&folder).args(["run", "read_write"]).env("TMPDIR", &long).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_sequence_that_cannot_be_written_is_one_scenarios_matter() {
    let folder = RunFolder::create().unwrap();
    let scenarios = folder_of_scenarios(&folder, OsStr::new("s"), &["a", "b"]);
    assert_eq!(test(&folder, &scenarios, &["--accept".as_ref()]).0, Some(0));
    std::fs::write(scenarios.join("a.snap"), "access  vcpu 0  gone\n").unwrap();
    // A folder in the file's place keeps root from writing too.
    std::fs::create_dir(scenarios.join("a.snap.new")).unwrap();
    let report = folder.file("junit.xml");
    let (code, said) = test(&folder, &scenarios, &["--junit".as_ref(), report.as_os_str()]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("2 scenarios: 1 success, 1 failure") && said.contains("cannot write"), "{said}");
    assert!(std::fs::read_to_string(report).unwrap().contains("failures=\"1\""));
}

#[test]
fn what_runs_for_ci_writes_nothing_into_the_checkout() {
    let folder = RunFolder::create().unwrap();
    let scenarios = folder_of_scenarios(&folder, OsStr::new("s"), &["a"]);
    let output = command(&folder).arg("test").arg(&scenarios).env("CI", "true").output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(!scenarios.join("a.snap.new").exists());
    assert_eq!(test(&folder, &scenarios, &[]).0, Some(5));
    assert!(scenarios.join("a.snap.new").exists());
}
