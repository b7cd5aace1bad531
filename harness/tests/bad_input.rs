//! Bad input: one clear line and a remedy, exit code 2 or 3, no process and no file left behind.

use crate::support::{command, left_over};
use harness::guest::Guest;
use harness::machine::folder::RunFolder;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A case: arguments, the exit code, what the line must hold, what the remedy must hold.
type Case<'a> = (&'a [&'a str], i32, &'a str, &'a str);

fn check(cases: &[Case<'_>]) {
    for (arguments, code, line, remedy) in cases {
        let folder = RunFolder::create().unwrap();
        let output = command(&folder).args(*arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.starts_with("mem-event: ") && said.lines().count() == 2, "{arguments:?}: {said}");
        assert!(said.lines().next().unwrap().contains(line), "{arguments:?}: {said}");
        assert!(said.lines().nth(1).unwrap().contains(remedy), "{arguments:?}: {said}");
        assert_eq!(left_over(&folder), [""; 0], "{arguments:?} leaves files");
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_told_with_a_remedy() {
    let disk = Guest::find("boot_sector").unwrap().path.to_str().unwrap().to_owned();
    check(&[
        (&["run", "page_inn"], 2, "no guest \"page_inn\"", "page_in"),
        (&["run", "./nothing-here"], 2, "no such file", "name a file"),
        (&["run", "page_in", "--watch", "0x100..0x50=r"], 2, "ends before it begins", "write frames"),
        (&["run", "page_in", "--watch", "PAGE=r"], 2, "no symbol \"PAGE\"", "PAGES"),
        (&["run", "page_in", "--watch", "PAGES"], 2, "names no access", "RANGE=r"),
        (&["run", "page_in", "--watch", "PAGES=q"], 2, "no access 'q'", "r, w"),
        (&["run", "page_in", "--page-out", ""], 2, "is empty", "write frames"),
        (&["run", "linux", "--watch", "start_kernel=r"], 2, "no symbol", "kernel:NAME"),
        (&["run", "page_in", "--memory", "12Q"], 2, "12Q", "512M"),
        (&["run", "page_in", "--memory", "64K"], 2, "too few", "at least"),
        (&["run", "page_in", "--paging-target", "1G"], 2, "above its memory", "smaller"),
        (&["run", "page_in", "--deadline", "soon"], 2, "\"soon\"", "60s"),
        (&["run", "page_in", "--qemu", "/nowhere/qemu"], 2, "no QEMU at /nowhere/qemu", "name a"),
        (
            &["run", "page_in", "--trace", "/nowhere/trace"],
            2,
            "cannot write the trace /nowhere/trace",
            "can be written",
        ),
        (&["run", "page_in", "--trace", "/proc/self/comm"], 2, "is no trace: it is not overwritten", "a new file"),
        (&["run", "page_in", "--consumer", "acces=./x"], 2, "no ring \"acces\"", "did you mean access?"),
        (&["run", "page_in", "--trace", "/"], 2, "cannot write the trace /", "can be written"),
        (&["run", "example", "--", "-no-such-option"], 2, "-no-such-option", "doctor"),
        (&["attach", "/nowhere/socket", "--guest", &disk], 2, "has no symbols: it is no ELF", "--symbols FILE"),
        (&["attach", "/nowhere/socket"], 2, "nobody listens at /nowhere/socket", "socket=PATH"),
        (&["replay", "/nowhere/trace"], 2, "cannot read the trace /nowhere/trace", "--trace"),
        (&["step", "/nowhere/trace"], 2, "cannot read the trace /nowhere/trace", "--trace"),
        (&["step", "/proc/self/exe"], 2, "not a trace", "--trace"),
        (&["replay", "/proc/self/exe"], 2, "not a trace", "--trace"),
    ]);
}

#[test]
fn what_clap_refuses_is_usage() {
    for arguments in [&["run"][..], &["run", "page_in", "--vcpus", "0"], &["fly"], &[]] {
        let folder = RunFolder::create().unwrap();
        assert_eq!(command(&folder).args(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

/// A good guest's bytes with a change.
fn changed(folder: &RunFolder, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = std::fs::read(Guest::find("example").unwrap().path).unwrap();
    change(&mut bytes);
    let path = folder.file(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn an_image_that_is_no_guest_is_told_why() {
    let folder = RunFolder::create().unwrap();
    let note = b"\x12\0\0\0Xen\0";
    let cases = [
        (changed(&folder, "empty", Vec::clear), "not an ELF"),
        (changed(&folder, "text", |bytes| *bytes = b"#!/bin/sh\n".to_vec()), "not an ELF"),
        (changed(&folder, "short", |bytes| bytes.truncate(70)), "damaged ELF"),
        (changed(&folder, "narrow", |bytes| bytes[4] = 1), "damaged ELF"),
        (changed(&folder, "foreign", |bytes| bytes[18] = 183), "another machine"),
        (changed(&folder, "shared", |bytes| bytes[16] = 3), "another kind"),
        (
            changed(&folder, "noteless", |bytes| {
                let at = bytes.windows(note.len()).position(|window| window == note).expect("a PVH note");
                bytes[at] = 17;
            }),
            "no PVH entry note",
        ),
        (PathBuf::from("/"), "cannot read guest /"),
    ];
    for (path, why) in cases {
        check(&[(&["run", path.to_str().unwrap()], 2, why, "")]);
    }
}

/// Puts a program somewhere. Not by this process: what it has open for writing, a child of another test may hold for a
/// moment, and such a program does not start.
fn install(from: &Path, to: &Path) {
    let installed = std::process::Command::new("install").args(["-m", "755"]).args([from, to]).status().unwrap();
    assert!(installed.success(), "{} is not installed", to.display());
}

/// A program that stands in for a QEMU.
fn script(folder: &RunFolder, name: &str, text: &str) -> String {
    let path = folder.file(name);
    std::fs::write(path.with_extension("text"), format!("#!/bin/sh\n{text}\n")).unwrap();
    install(&path.with_extension("text"), &path);
    path.to_str().unwrap().into()
}

#[test]
fn a_qemu_that_will_not_do_is_told_why() {
    let folder = RunFolder::create().unwrap();
    let says = |version: &str, error: &str| {
        format!(
            "[ \"$1\" = --version ] && {{ echo 'QEMU emulator version {version}'; exit 0; }}; echo '{error}' >&2; exit 1"
        )
    };
    let old = script(&folder, "old", &says("7.2.0", "TCG plugin requires API version 4"));
    let plain = script(&folder, "plain", &says("10.0.2", "qemu: -plugin: invalid option"));
    let other = script(&folder, "other", "exit 0");
    let unable = folder.file("unable");
    std::fs::write(&unable, "not a program").unwrap();
    check(&[
        (&["run", "example", "--qemu", &old], 3, "version 7.2", "9.2"),
        (&["run", "example", "--qemu", &plain], 3, "built without plugins", "ci/setup"),
        (&["run", "example", "--qemu", &other], 2, "is no QEMU", "--qemu"),
        (&["run", "example", "--qemu", unable.to_str().unwrap()], 2, "cannot start", "--qemu"),
    ]);
}

#[test]
fn a_machine_without_qemu_is_told_what_to_install() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["run", "example"]).env("PATH", "/nowhere").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no qemu-system-x86_64 in PATH") && said.contains("ci/setup"), "{said}");
}

#[test]
fn an_installed_command_finds_its_parts_beside_itself_or_in_its_prefix_or_says_what_is_missing() {
    let built = Path::new(env!("CARGO_BIN_EXE_mem-event"));
    for (command, parts) in [("mem-event", "."), ("bin/mem-event", "lib/mem-event")] {
        let folder = RunFolder::create().unwrap();
        let (installed, parts) = (folder.file(command), folder.file(parts));
        for folder in [installed.parent().unwrap(), &parts] {
            std::fs::create_dir_all(folder).unwrap();
        }
        install(built, &installed);
        let run = || {
            let output = std::process::Command::new(&installed).args(["run", "example"]).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, said) = run();
        assert!(
            code == Some(2)
                && said.contains("no built-in guests were built or installed with this program")
                && said.contains("MEM_EVENT_LIB"),
            "{said}"
        );
        std::fs::create_dir(parts.join("guests")).unwrap();
        std::fs::copy(Guest::find("example").unwrap().path, parts.join("guests/example")).unwrap();
        let (code, said) = run();
        assert!(code == Some(3) && said.contains("no libmem_event_plugin.so beside the program"), "{said}");
        let library = harness::machine::qemu::plugin_library().unwrap();
        std::fs::copy(library, parts.join("libmem_event_plugin.so")).unwrap();
        let (code, said) = run();
        assert!(code == Some(0), "{said}");
    }
}

#[test]
fn a_folder_that_a_variable_names_for_what_comes_with_the_command_rules_the_others_out() {
    let folder = RunFolder::create().unwrap();
    std::fs::create_dir(folder.file("guests")).unwrap();
    std::fs::copy(Guest::find("example").unwrap().path, folder.file("guests/example")).unwrap();
    let output = command(&folder).args(["run", "example"]).env("MEM_EVENT_LIB", folder.file("")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no libmem_event_plugin.so in") && said.contains("MEM_EVENT_LIB names"), "{said}");
}

/// Needs root, to give it up; as another user the right may or may not be there.
#[test]
fn without_the_right_to_userfaultfd_paging_is_skipped() {
    let Some((output, _)) = run_without_the_right_to_userfaultfd("page_in") else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no right to open a userfaultfd") && said.contains("/dev/userfaultfd"), "{said}");
}

/// Watching alone needs no more than the checks, and what they do not see is said.
#[test]
fn without_the_right_to_userfaultfd_pages_are_watched_and_what_is_not_seen_is_told() {
    let Some((output, _)) = run_without_the_right_to_userfaultfd("page_cross") else { return };
    let (said, summary) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(summary.contains("watching without userfaultfd: page walks"), "{summary}");
    assert!(summary.contains("/dev/userfaultfd"), "the remedy: {summary}");
    let accepted = harness::suite::snapshot::text(harness::scenario::corpus::snapshot("page_cross").unwrap());
    assert!(summary.contains(accepted.trim()), "{summary}");
}

/// A reader of the sequence is told too, and what is compared is the same.
#[test]
fn the_header_of_a_sequence_that_was_seen_without_userfaultfd_says_what_is_not_in_it() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/page_cross.toml");
    let test = |folder: &Path| {
        std::fs::copy(&file, folder.join("page_cross.toml")).unwrap();
        vec!["test".into(), "--accept".into(), folder.join("page_cross.toml").into()]
    };
    let Some((output, folder)) = without_the_right_to_userfaultfd("page_cross", test) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let kept = std::fs::read_to_string(folder.file("page_cross.snap")).unwrap();
    let header = kept.strip_prefix("---\n").unwrap().split("\n---\n").next().unwrap();
    assert!(header.contains("\ninfo: \"watching without userfaultfd: page walks"), "{header}");
    let accepted = harness::scenario::corpus::snapshot("page_cross").unwrap();
    let [kept, accepted] = [kept.as_str(), accepted].map(harness::suite::snapshot::text);
    assert_eq!(kept, accepted);
}

fn run_without_the_right_to_userfaultfd(scenario: &str) -> Option<(std::process::Output, RunFolder)> {
    without_the_right_to_userfaultfd(scenario, |_| vec!["run".into(), scenario.into(), "--sequence".into()])
}

/// The command with these arguments, beside a copy of this guest in a folder that anybody may write.
fn without_the_right_to_userfaultfd(
    guest: &str,
    arguments: impl FnOnce(&Path) -> Vec<std::ffi::OsString>,
) -> Option<(std::process::Output, RunFolder)> {
    let allowed = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    if !rustix::process::geteuid().is_root() || allowed.trim() == "1" {
        println!("not shown: this user cannot give the right up");
        return None;
    }
    let folder = RunFolder::create().unwrap();
    std::fs::set_permissions(folder.file(""), std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = folder.file("bin");
    std::fs::create_dir_all(copy.join("guests")).unwrap();
    install(Path::new(env!("CARGO_BIN_EXE_mem-event")), &copy.join("mem-event"));
    std::fs::copy(harness::machine::qemu::plugin_library().unwrap(), copy.join("libmem_event_plugin.so")).unwrap();
    std::fs::copy(Guest::find(guest).unwrap().path, copy.join("guests").join(guest)).unwrap();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(copy.join("mem-event")).args(arguments(&folder.file(""))).env_remove("CI");
    let output = command.output().unwrap();
    Some((output, folder))
}
