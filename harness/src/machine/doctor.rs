//! What this machine has and lacks, with a remedy for each lack.

use super::{container, qemu};
use crate::guest::{self, linux};
use crate::output;
use serde::Serialize;
use std::borrow::Cow;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: Cow<'static, str>,
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
    Check { name: name.into(), ok, found: found.unwrap_or_else(|lack| lack), remedy }
}

/// Looks at everything; at this QEMU, if one is named.
#[must_use]
pub fn checks(named: Option<&Path>) -> Vec<Check> {
    let install = "run ci/setup (Debian 12 with backports, Debian 13), or install QEMU 9.2 to 11.x built with plugins";
    let found = qemu::find(named);
    let path = found.as_deref().ok();
    let told = path.map_or_else(|| Err("no QEMU to look at".to_owned()), plugin);
    let none = || Err(String::from("no QEMU to look at"));
    let mut checks = vec![
        check("qemu", found.clone().map(|path| path.display().to_string()).map_err(|refusal| refusal.what), install),
        check("qemu version", path.map_or_else(none, version), install),
        check("qemu plugins", path.map_or_else(none, plugins), install),
        check(
            "plugin",
            qemu::plugin_library().map(shown).map_err(|refusal| refusal.what),
            "ci/build, or install the package; MEM_EVENT_LIB names another folder",
        ),
        check("userfaultfd", userfaultfd(told.as_ref().ok()), &how_to_get_userfaultfd()),
        gate_mmu(told.as_ref().map_err(Clone::clone).and_then(|told| told.gate_mmu.clone())),
        check("memory files", memory_files(), "needs a Linux kernel with memfd_create"),
        check("guests", guests(), "ci/build, or install the package"),
        check(
            "linux kernel",
            linux::kernel().map(shown).map_err(|refusal| refusal.what),
            "run ci/setup, or install linux-image-cloud-amd64, or name a bzImage in MEM_EVENT_KERNEL",
        ),
        check(
            "busybox",
            linux::initrd().map(|_| "static busybox".into()).map_err(|error| error.to_string()),
            "run ci/setup",
        ),
        Check {
            name: "kvm".into(),
            ok: None,
            found: "not needed: QEMU's TCG runs the guests".into(),
            remedy: String::new(),
        },
    ];
    checks.extend(told.into_iter().flat_map(|told| told.capabilities));
    checks
}

fn shown(path: std::path::PathBuf) -> String {
    path.display().to_string()
}

/// The oldest QEMU whose plugin API has what the plugin needs.
const OLDEST: (u32, u32) = (9, 2);
/// The newest one that was tried (docs/qemu.md).
const NEWEST_TRIED: (u32, u32) = (11, 1);

fn version(path: &Path) -> Result<String, String> {
    let (major, minor) = qemu::version(path).ok_or("it does not state a version")?;
    match (major, minor) {
        version if version < OLDEST => Err(format!("{major}.{minor} is older than 9.2 (plugin API 4)")),
        version if version > NEWEST_TRIED => {
            Ok(format!("{major}.{minor}: newer than what was tried, which is not refused"))
        }
        _ => Ok(format!("{major}.{minor}")),
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

/// What this user may, as the plugin finds it by trying: the rules of a container forbid it to root, too.
fn userfaultfd(told: Option<&Told>) -> Result<String, String> {
    match told.map(|told| &told.userfaultfd) {
        Some(Err(lack)) => Err(lack.split_once("; ").map_or(&**lack, |(what, _)| what).to_owned()),
        Some(Ok(())) | None => userfaultfd_by_rights(),
    }
}

/// By what right; where no plugin can be asked, it is all that is known.
fn userfaultfd_by_rights() -> Result<String, String> {
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

fn how_to_get_userfaultfd() -> String {
    let how = container::kind().map_or_else(
        || "run as root, or give access to /dev/userfaultfd, or set sysctl vm.unprivileged_userfaultfd=1".to_owned(),
        |kind| container::remedy(&kind),
    );
    format!(
        "{how}. Without it nothing is paged, and pages are watched by checks alone (gate=callback), which do not see page walks, \
         deliveries, DMA and late accesses"
    )
}

/// What the plugin says of a QEMU and of the kernel.
struct Told {
    userfaultfd: Result<(), String>,
    gate_mmu: Result<String, String>,
    capabilities: Vec<Check>,
}

/// Asks the plugin in a QEMU of this user's.
fn plugin(qemu: &Path) -> Result<Told, String> {
    let library = qemu::plugin_library().map_err(|refusal| refusal.what)?;
    let output = Command::new(qemu)
        .args(["-machine", "none", "-display", "none", "-nodefaults", "-plugin"])
        .arg(qemu::option_of_plugin(&library, "probe=all"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let cannot = || "the plugin cannot be asked in this QEMU".to_owned();
    let (_, answer) = said.split_once("mem-event: ").ok_or_else(cannot)?;
    let rows = |row: &'static str| answer.lines().filter_map(move |line| line.strip_prefix(row)?.strip_prefix('\t'));
    let lacks = |row| match rows(row).next() {
        Some("") => Ok(()),
        Some(lack) => Err(lack.to_owned()),
        None => Err(cannot()),
    };
    let gate_mmu = lacks("gate-mmu");
    Ok(Told {
        userfaultfd: lacks("userfaultfd"),
        gate_mmu: gate_mmu.map(|()| "works here: userfaultfd with minor faults, pages mapped write-protected".into()),
        capabilities: rows("capability").filter_map(capability).collect(),
    })
}

/// What the plugin can do; what is so without it is its remedy's place.
fn capability(row: &str) -> Option<Check> {
    let mut columns = row.split('\t').map(str::to_owned);
    let name = columns.next()?.into();
    let lack = columns.next().map(|lack| format!("this QEMU cannot {lack}"));
    let remedy = columns.next().map(|without| format!("so {without}")).unwrap_or_default();
    Some(Check { name, ok: lack.is_none().then_some(true), found: lack.unwrap_or_else(|| "there".into()), remedy })
}

/// No lack of this machine: `gate=callback` does the same, and what both need is a row of its own.
fn gate_mmu(found: Result<String, String>) -> Check {
    let name = "gate=mmu";
    match found {
        Ok(found) => Check { name: name.into(), ok: Some(true), found, remedy: String::new() },
        Err(lack) => {
            let (found, remedy) = lack.split_once("; ").unwrap_or((&lack, "see the lines above"));
            Check { name: name.into(), ok: None, found: found.to_owned(), remedy: remedy.to_owned() }
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
pub fn doctor(json: bool, qemu: Option<&Path>) -> anyhow::Result<u8> {
    let checks = checks(qemu);
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut output = std::io::stdout().lock();
    if json {
        writeln!(output, "{}", output::json(&serde_json::json!({ "checks": checks }))?)?;
    } else {
        for check in &checks {
            let mark = check.ok.map_or("  - ", |ok| if ok { " ok " } else { "LACK" });
            writeln!(output, "{mark} {:<width$} {}", check.name, check.found)?;
            if !check.remedy.is_empty() {
                writeln!(output, "     {:<width$} {}", "", check.remedy)?;
            }
        }
    }
    Ok(if checks.iter().all(|check| check.ok != Some(false)) { 0 } else { 3 })
}
