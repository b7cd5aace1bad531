//! `mem-event test` and `mem-event new`, as a user meets them.

use crate::support::command;
use harness::machine::folder::RunFolder;
use std::path::Path;

/// The command's exit code and output.
fn mem_event(folder: &RunFolder, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(folder).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_new_scenario_is_built_run_accepted_broken_and_mended_outside_of_the_repository() {
    let folder = RunFolder::create().unwrap();
    let project = folder.file("mine");
    let at = |file: &str| project.join(file);
    let (code, said) = mem_event(&folder, &["new", project.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let built = std::process::Command::new("cargo")
        .args(["build", "--release", "--offline"])
        .current_dir(at("guest"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .unwrap();
    assert!(built.success());
    let scenarios = at("scenarios");
    let scenarios = scenarios.to_str().unwrap();
    let (code, said) = mem_event(&folder, &["test", scenarios]);
    assert!(code == Some(5) && said.contains("there is no accepted sequence yet"), "{said}");
    let (code, said) = mem_event(&folder, &["test", scenarios, "--accept"]);
    assert!(code == Some(0) && said.contains("accepted  mine"), "{said}");
    assert!(!at("scenarios/mine.snap.new").exists());
    let (code, said) = mem_event(&folder, &["test", scenarios, "--repeat", "3"]);
    assert_eq!((code, said.as_str()), (Some(0), "success   mine\n1 scenarios: 1 success\n"));
    replace(&at("scenarios/mine.toml"), "stop = \"rwx\"", "stop = \"w\"");
    let junit = folder.file("junit.xml");
    let coloured =
        |arguments: &[&str]| mem_event(&folder, &[&["test", scenarios], arguments].concat()).1.contains("\u{1b}[31m");
    assert!(coloured(&["--color", "always"]) && !coloured(&[]) && !coloured(&["--color", "never"]));
    let (code, said) = mem_event(&folder, &["test", scenarios, "--junit", junit.to_str().unwrap()]);
    assert!(code == Some(5) && said.contains("the sequence has changed"), "{said}");
    assert!(said.contains("\n  - access") && at("scenarios/mine.snap.new").exists(), "{said}");
    let changed = said.matches("\n  - access").count();
    let (code, said) = mem_event(&folder, &["test", scenarios, "--review"]);
    assert!(code == Some(5) && said.contains("accept? [y/N] "), "{said}");
    assert_eq!(said.matches("\n  - access").count(), changed, "each change is shown once:\n{said}");
    let report = std::fs::read_to_string(junit).unwrap();
    assert!(report.contains("tests=\"1\" failures=\"1\"") && report.contains("<failure message="), "{report}");
    replace(&at("scenarios/mine.toml"), "stop = \"w\"", "stop = \"rwx\"");
    assert_eq!(mem_event(&folder, &["test", scenarios]).0, Some(0));
}

#[test]
fn a_sequence_without_any_event_is_accepted_with_a_word_about_it() {
    let folder = RunFolder::create().unwrap();
    let scenario = folder.file("quiet.toml");
    let text = "version = 1\nabout = \"quiet\"\n[machine]\nguest = \"touch\"\n";
    std::fs::write(&scenario, text).unwrap();
    let (code, said) = mem_event(&folder, &["test", scenario.to_str().unwrap(), "--accept"]);
    assert!(code == Some(0) && said.contains("accepted  quiet: a sequence without any event\n"), "{said}");
}

#[test]
fn the_parts_of_a_suite_are_the_whole() {
    let folder = RunFolder::create().unwrap();
    let names = |arguments: &[&str]| {
        let output = mem_event(&folder, &[&["test", "--json", "--filter", "layout_"], arguments].concat()).1;
        let mut names: Vec<String> = output
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let mut parts = [names(&["--partition", "1/2"]), names(&["--partition", "2/2"])].concat();
    assert_eq!(names(&["--partition", "4/4"]), [""; 0], "a part without a scenario");
    let empty = mem_event(&folder, &["test", "--filter", "layout_", "--partition", "4/4"]);
    assert_eq!(empty, (Some(0), "0 scenarios\n".into()), "and that is no failure");
    parts.sort();
    assert_eq!(parts, ["layout_flags16", "layout_flags32", "layout_vm_event7"]);
}

#[test]
fn what_cannot_be_tested_is_told_with_a_remedy() {
    let folder = RunFolder::create().unwrap();
    for (arguments, why) in [
        (&["test", "--filter", "nothing_of_this_name"][..], "no scenario is left to run"),
        (&["test", "/nowhere/at/all"], "cannot read the scenario"),
        (&["test", "--accept", "--filter", "example"], "are in this program"),
        (&["new", "Not A Name"], "is no name for a guest"),
        (&["new", "/tmp"], "is there already"),
    ] {
        let (code, said) = mem_event(&folder, arguments);
        assert!(code == Some(2) && said.contains(why) && said.contains("remedy: "), "{arguments:?}: {said}");
    }
}
