//! What this machine has and lacks, with a remedy for each lack.

use super::qemu;
use crate::guest::{self, linux};
use crate::output;
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it is as needed; `None` for what is only told.
    pub ok: Option<bool>,
    /// What was found.
    pub found: String,
    /// What to do if it is not as needed.
    pub remedy: String,
}

fn check(name: &'static str, found: Result<String, String>, remedy: &str) -> Check {
    let ok = Some(found.is_ok());
    let remedy = if found.is_ok() { String::new() } else { remedy.into() };
    Check { name, ok, found: found.unwrap_or_else(|lack| lack), remedy }
}

/// Looks at everything.
#[must_use]
pub fn checks() -> Vec<Check> {
    let install = "run ci/setup (Debian 12 with backports, Debian 13), or install QEMU 9.2 to 10.1 built with plugins";
    let found = qemu::find(None);
    let path = found.as_deref().ok();
    let none = || Err(String::from("no QEMU to look at"));
    vec![
        check("qemu", found.clone().map(|path| path.display().to_string()).map_err(|refusal| refusal.what), install),
        check("qemu version", path.map_or_else(none, version), install),
        check("qemu plugins", path.map_or_else(none, plugins), install),
        check(
            "plugin",
            qemu::plugin_library().map(shown).map_err(|refusal| refusal.what),
            "cargo build --release --workspace",
        ),
        check(
            "userfaultfd",
            userfaultfd(),
            "run as root, or give access to /dev/userfaultfd, or set sysctl vm.unprivileged_userfaultfd=1. Without it nothing is paged, and \
             pages are watched by checks alone (gate=callback), which do not see page walks, deliveries, DMA and late accesses",
        ),
        path.map_or_else(|| gate_mmu(Err(String::from("no QEMU to look at"))), |path| gate_mmu(ask_plugin(path))),
        check("memory files", memory_files(), "needs a Linux kernel with memfd_create"),
        check("guests", guests(), "build them: ci/demo"),
        check("linux kernel", linux::kernel().map(shown).map_err(|refusal| refusal.what), "run ci/setup"),
        check(
            "busybox",
            linux::initrd().map(|_| "static busybox".into()).map_err(|error| error.to_string()),
            "run ci/setup",
        ),
        Check { name: "kvm", ok: None, found: "not needed: QEMU's TCG runs the guests".into(), remedy: String::new() },
    ]
}

fn shown(path: std::path::PathBuf) -> String {
    path.display().to_string()
}

fn version(path: &Path) -> Result<String, String> {
    let (major, minor) = qemu::version(path).ok_or("it does not state a version")?;
    if (major, minor) < (9, 2) {
        Err(format!("{major}.{minor} is older than 9.2 (plugin API 4)"))
    } else if (major, minor) > (10, 2) {
        Err(format!("{major}.{minor} is newer than what plugin API 4 reaches"))
    } else {
        Ok(format!("{major}.{minor}"))
    }
}

/// A QEMU without plugins does not know the option; one with them says what it misses.
fn plugins(path: &Path) -> Result<String, String> {
    let output = Command::new(path)
        .args(["-plugin", "help", "-machine", "none", "-display", "none"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("invalid option") || said.contains("not enabled") {
        Err("built without plugins".into())
    } else {
        Ok("built with plugins".into())
    }
}

fn userfaultfd() -> Result<String, String> {
    let is_root = rustix::process::geteuid().is_root();
    let device = std::fs::File::options().read(true).write(true).open("/dev/userfaultfd").is_ok();
    let sysctl = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    match sysctl {
        Err(_) => Err("the kernel has no userfaultfd".into()),
        Ok(_) if is_root => Ok("as root".into()),
        Ok(_) if device => Ok("through /dev/userfaultfd".into()),
        Ok(value) if value.trim() == "1" => Ok("vm.unprivileged_userfaultfd is 1".into()),
        Ok(_) => Err("this user may not handle the kernel's faults".into()),
    }
}

/// What the plugin, in a QEMU of this user's, finds of the kernel.
fn ask_plugin(qemu: &Path) -> Result<String, String> {
    let library = qemu::plugin_library().map_err(|refusal| refusal.what)?;
    let output = Command::new(qemu)
        .args(["-machine", "none", "-display", "none", "-nodefaults", "-plugin"])
        .arg(qemu::option_of_plugin(&library, "probe=gate-mmu"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let answer = said.lines().find_map(|line| line.strip_prefix("mem-event: "));
    match answer {
        Some("gate=mmu works here") => {
            Ok("works here: userfaultfd with minor faults, pages mapped write-protected".into())
        }
        Some(lack) => Err(lack.into()),
        None => Err("the plugin cannot be asked in this QEMU".into()),
    }
}

/// No lack of this machine: `gate=callback` does the same, and what both need is a row of its own.
fn gate_mmu(found: Result<String, String>) -> Check {
    let name = "gate=mmu";
    match found {
        Ok(found) => Check { name, ok: Some(true), found, remedy: String::new() },
        Err(lack) => {
            let (found, remedy) = lack.split_once("; ").unwrap_or((&lack, "see the lines above"));
            Check { name, ok: None, found: found.to_owned(), remedy: remedy.to_owned() }
        }
    }
}

fn memory_files() -> Result<String, String> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("mem-event-doctor", flags)
        .map(|_| "memfd_create works".into())
        .map_err(|error| error.to_string())
}

fn guests() -> Result<String, String> {
    let names = guest::built_in();
    if names.is_empty() { Err("none beside the program".into()) } else { Ok(names.join(" ")) }
}

/// Prints what was found; 0 if nothing is lacking, else 3.
///
/// # Errors
/// The output cannot be written.
pub fn doctor(json: bool) -> anyhow::Result<u8> {
    let checks = checks();
    let mut output = std::io::stdout().lock();
    if json {
        writeln!(output, "{}", output::json(&serde_json::json!({ "checks": checks }))?)?;
    } else {
        for check in &checks {
            let mark = check.ok.map_or("  - ", |ok| if ok { " ok " } else { "LACK" });
            writeln!(output, "{mark} {:<13} {}", check.name, check.found)?;
            if !check.remedy.is_empty() {
                writeln!(output, "     {:<13} {}", "", check.remedy)?;
            }
        }
    }
    Ok(if checks.iter().all(|check| check.ok != Some(false)) { 0 } else { 3 })
}
