//! `mem-event new` with a consumer, outside of the repository: what it writes builds, and its test is green as it is written.

use crate::support::command;
use harness::machine::folder::RunFolder;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command's exit code and output.
fn mem_event(folder: &RunFolder, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(folder).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

/// `make` there, as a person who has just this folder and the crates that this repository is built with.
fn make(project: &Path, target: &str) -> (bool, String) {
    let output = Command::new("make")
        .arg(target)
        .arg(format!("MEM_EVENT={}", env!("CARGO_BIN_EXE_mem-event")))
        .current_dir(project)
        .env("CARGO_NET_OFFLINE", "true")
        .env("RUSTFLAGS", "--cfg none_of_the_guests_business")
        // What the crates come to is the same for each project; a cargo that does not know this builds them for each.
        .env("CARGO_BUILD_BUILD_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("new"))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CI")
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A new folder with a consumer, tested.
fn is_green_as_it_is_written(kind: &str, language: &str) -> (RunFolder, PathBuf) {
    let folder = RunFolder::create().unwrap();
    let project = folder.file("mine");
    let (code, said) = mem_event(&folder, &["new", kind, "--language", language, project.to_str().unwrap()]);
    assert!(code == Some(0) && said.contains("make -C "), "{said}");
    let (green, said) = make(&project, "test");
    assert!(green && said.contains("success   mine\n"), "{said}");
    let report = std::fs::read_to_string(project.join("junit.xml")).unwrap();
    assert!(report.contains("tests=\"1\" failures=\"0\""), "{report}");
    (folder, project)
}

#[test]
fn a_new_listener_in_rust_is_green_as_it_is_written() {
    is_green_as_it_is_written("--listener", "rust");
}

#[test]
fn a_new_pager_in_rust_is_green_as_it_is_written() {
    is_green_as_it_is_written("--pager", "rust");
}

#[test]
fn a_new_listener_in_python_is_green_as_it_is_written() {
    is_green_as_it_is_written("--listener", "python");
}

#[test]
fn a_new_pager_in_python_is_green_as_it_is_written() {
    is_green_as_it_is_written("--pager", "python");
}

fn has_xens_headers() -> bool {
    let has = Path::new("/usr/include/xen/vm_event.h").exists();
    if !has {
        eprintln!("skipped: Xen's public headers are not installed (ci/setup installs libxen-dev)");
    }
    has
}

#[test]
fn a_new_listener_in_c_is_green_as_it_is_written() {
    if has_xens_headers() {
        is_green_as_it_is_written("--listener", "c");
    }
}

#[test]
fn a_new_pager_in_c_is_green_as_it_is_written_and_red_when_it_brings_another_page_back() {
    if !has_xens_headers() {
        return;
    }
    let (_folder, project) = is_green_as_it_is_written("--pager", "c");
    let source = project.join("consumer/pager.c");
    let text = std::fs::read_to_string(&source).unwrap();
    let right = "pread(file, content, PAGE, (off_t)(gfn * PAGE))";
    assert!(text.contains(right), "{text}");
    // Of the page's neighbour, once.
    std::fs::write(&source, text.replace(right, "pread(file, content, PAGE, (off_t)((gfn - (gfn == 0x510)) * PAGE))"))
        .unwrap();
    let (green, said) = make(&project, "test");
    assert!(!green && said.contains("1 scenarios: 1 failure"), "{said}");
    std::fs::write(&source, text).unwrap();
    let (green, said) = make(&project, "test");
    assert!(green, "{said}");
    // A mistake in any input is told in a sentence that names it.
    let scenario = project.join("scenarios/mine.toml");
    let good = std::fs::read_to_string(&scenario).unwrap();
    for (from, to, why) in [
        ("guest/target/release/mine", "guest/target/release/nine", "target/release/nine: there is no such file"),
        ("consumer/pager\"", "consumer/pagger\"", "cannot be started in"),
        ("paging:vm_event7", "paging:flags32", "never was ready: exit status: 1"),
        ("paging:vm_event7", "pagin:vm_event7", "is no ring"),
        ("\"PAGES\"", "\"PAGE\"", "PAGES"),
        ("at = 1", "at = 7", "checkpoint 7 was never reached"),
    ] {
        assert!(good.contains(from), "{good}");
        std::fs::write(&scenario, good.replace(from, to)).unwrap();
        let (green, said) = make(&project, "test");
        assert!(!green && said.contains(why), "{to}: {said}");
    }
}

#[test]
fn a_language_without_a_consumer_and_two_consumers_are_refused() {
    let folder = RunFolder::create().unwrap();
    for (arguments, why) in [
        (&["--language", "c"][..], "<--pager|--listener>"),
        (&["--pager", "--listener"], "cannot be used with"),
        (&["--pager", "--language", "go"], "possible values: c, rust, python"),
    ] {
        let project = folder.file("mine");
        let (code, said) = mem_event(&folder, &[&["new"], arguments, &[project.to_str().unwrap()]].concat());
        assert!(code == Some(2) && said.contains(why) && !project.exists(), "{arguments:?}: {said}");
    }
}
