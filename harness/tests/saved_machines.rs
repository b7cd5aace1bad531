//! Machines that are saved after their boot: a run from one begins behind the boot, and a state that is not this machine's is refused.

use crate::support::{command, kernel_maps_write_protected};
use harness::guest::linux;
use harness::machine::folder::RunFolder;
use std::path::PathBuf;
use std::process::Output;

/// A scenario of a Linux that is up: which function of its kernel powers it off.
const SCENARIO: &str = r#"
version = 1
about = "A Linux that is up powers off"

[machine]
guest = "linux"
append = "mem_event.work=none mem_event.wait=1"
memory = "128M"
from = "saved:up"

[[start]]
watch = { frames = "kernel:__do_sys_reboot", stop = "x" }

[consumers.listener]
"#;

struct Cache {
    folder: RunFolder,
    kernel: PathBuf,
}

impl Cache {
    fn new() -> Cache {
        let folder = RunFolder::create().unwrap();
        std::fs::write(folder.file("up.toml"), SCENARIO).unwrap();
        Cache { folder, kernel: linux::kernel().unwrap() }
    }

    /// The command with a cache of its own.
    fn says(&self, arguments: &[&str]) -> Output {
        let mut command = command(&self.folder);
        command.env("XDG_CACHE_HOME", self.folder.file("cache")).env("MEM_EVENT_KERNEL", &self.kernel);
        command.current_dir(self.folder.file("")).args(arguments).output().unwrap()
    }

    fn is_refused(&self, arguments: &[&str], why: &[&str]) {
        let output = self.says(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 2, "an error and a remedy: {said}");
        why.iter().for_each(|part| assert!(said.contains(part), "{arguments:?}: {said}"));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.file("cache/mem-event/machines/up").join(name)
    }
}

#[test]
fn runs_from_a_saved_linux_begin_behind_its_boot_and_do_the_same() {
    let cache = Cache::new();
    let run = &["run", "up.toml", "--sequence"];
    cache.is_refused(run, &["no machine is saved as \"up\"", "mem-event save GUEST up"]);
    let saved = cache.says(&["save", "up.toml", "up"]);
    assert!(saved.status.success(), "{}", String::from_utf8_lossy(&saved.stderr));
    assert!(String::from_utf8_lossy(&saved.stdout).contains("--from saved:up"));
    assert!(String::from_utf8_lossy(&cache.says(&["list"]).stdout).contains("\n  up\n"));

    let sequence = |gate: &str| {
        let output = cache.says(&[run.as_slice(), &["--gate", gate, "--console"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            !text.contains("Kernel code"),
            "what the guest said before belongs to the machine that was saved: {text}"
        );
        let event = text.lines().find(|line| line.starts_with("access")).unwrap_or_default().to_owned();
        assert!(event.contains("__x64_sys_reboot") || event.contains("__do_sys_reboot"), "{text}");
        event
    };
    let first = sequence("callback");
    let other = if kernel_maps_write_protected() { "mmu" } else { "callback" };
    for gate in [other, "callback", other] {
        assert_eq!(sequence(gate), first);
    }

    cache.is_refused(&["run", "up.toml", "--memory", "256M"], &["its memory is 134217728 bytes", "268435456 bytes"]);
    cache.is_refused(&["run", "up.toml", "--vcpus", "2"], &["its number of vCPUs is 1, and this machine's is 2"]);
    cache.is_refused(&["run", "linux", "--memory", "128M", "--from", "saved:up"], &["its guest is ", "with work"]);
    cache.is_refused(&["run", "up.toml", "--", "-cpu", "max"], &["its list of further arguments is none"]);

    let whole = std::fs::read(cache.file("state")).unwrap();
    std::fs::write(cache.file("state"), &whole[..whole.len() / 2]).unwrap();
    cache.is_refused(run, &["cannot be read", &format!("of {}", whole.len()), "save it again"]);
    let mut other = whole.clone();
    other[whole.len() / 2] ^= 1;
    std::fs::write(cache.file("state"), &other).unwrap();
    cache.is_refused(run, &["its bytes are not those that were saved"]);
    std::fs::remove_file(cache.file("state")).unwrap();
    cache.is_refused(run, &["there is no such file", "save it again"]);
    std::fs::write(cache.file("machine.json"), "{}").unwrap();
    cache.is_refused(run, &["cannot be read: missing field"]);
}

#[test]
fn what_cannot_be_saved_or_started_from_is_told_in_a_sentence() {
    let cache = Cache::new();
    cache.is_refused(&["save", "read_write", "../x", "--when", "x"], &["no name for a saved machine"]);
    cache.is_refused(&["save", "read_write", "x"], &["nothing says when read_write is to be saved", "--when TEXT"]);
    cache.is_refused(&["save", "read_write", "x", "--when", "never"], &["ended before its console said \"never\""]);
    cache.is_refused(&["save", "disk_ahci", "x", "--when", "x"], &["a machine with a disk is not saved"]);
    let endless = ["save", "endless", "x", "--when", "never", "--deadline", "1ms"];
    cache.is_refused(&endless, &["did not say \"never\" in time"]);
    cache.is_refused(&["run", "read_write", "--from", "there"], &["\"there\" is nothing to start from", "saved:NAME"]);
    assert!(!cache.folder.file("cache/mem-event/machines").exists(), "nothing was begun");
}
