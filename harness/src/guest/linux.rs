//! The Linux guest: Debian's cloud kernel, found on this machine, with a first file system made here around busybox.

use super::cpio::Archive;
use crate::refusal::Refusal;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// Where a bzImage is entered in 32-bit code, with its setup behind it (Linux's boot protocol).
pub const ENTRY: u64 = 0x10_0000;

/// What the kernel is told. Its checks of its own clocks measure the host here: on a loaded one the boot ended in "IO-APIC + timer doesn't work!"
/// now and then, and a vCPU that waits for an answer looks like a lockup.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 rdinit=/init \
    no_timer_check tsc=nowatchdog nowatchdog rcupdate.rcu_cpu_stall_suppress=1";
/// What it is told besides to boot and power off without work.
pub const WITHOUT_WORK: &str = "mem_event.work=none";

const INIT: &str = include_str!("init.sh");

/// The programs that `init.sh` calls.
const PROGRAMS: &[&str] = &[
    "awk", "cat", "chmod", "dd", "grep", "ln", "md5sum", "mkdir", "mount", "mv", "poweroff", "rm", "rmdir", "sh",
    "sleep", "sync", "tac", "touch", "tr", "truncate",
];

/// The kernel: `$MEM_EVENT_KERNEL`, or the one that `ci/setup` unpacked, or a cloud kernel in /boot.
///
/// # Errors
/// No kernel, or an environment variable that names none.
pub fn kernel() -> Result<PathBuf, Refusal> {
    if let Some(named) = std::env::var_os("MEM_EVENT_KERNEL") {
        let path = PathBuf::from(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Refusal::usage(
                format!("MEM_EVENT_KERNEL names {}, which is no file", path.display()),
                "name a bzImage, or unset it",
            ))
        };
    }
    let unpacked = cache().map(|cache| cache.join("mem-event/linux/vmlinuz")).filter(|path| path.is_file());
    unpacked.or_else(in_boot).ok_or_else(|| {
        Refusal::machine(
            "no Linux kernel found",
            "run ci/setup, or install linux-image-cloud-amd64, or name a bzImage in MEM_EVENT_KERNEL",
        )
    })
}

/// The user's cache: `$XDG_CACHE_HOME`, or `.cache` in `$HOME`.
pub(crate) fn cache() -> Option<PathBuf> {
    std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
}

fn in_boot() -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/boot")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("vmlinuz-") && name.ends_with("-cloud-amd64")
        })
        .collect();
    found.sort();
    found.pop()
}

/// The first file system: busybox and `init.sh`.
///
/// # Errors
/// No static busybox.
pub fn initrd() -> anyhow::Result<Vec<u8>> {
    let busybox = busybox()?;
    let content = std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let mut archive = Archive::default();
    for folder in ["bin", "calls", "dev", "proc", "trace", "work"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.device("dev/urandom", 1, 9);
    archive.file("bin/busybox", &content);
    for program in PROGRAMS {
        archive.link(&format!("bin/{program}"), "busybox");
    }
    archive.file("init", INIT.as_bytes());
    Ok(archive.finish())
}

fn busybox() -> Result<PathBuf, Refusal> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| Refusal::machine("no busybox found", "run ci/setup, or install the package busybox-static"))
}
