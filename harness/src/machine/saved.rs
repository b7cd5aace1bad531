//! Machines that were saved after their boot, to start from instead of booting.
//!
//! A saved machine is a folder in the user's cache with two files: `state`, as QEMU migrates a machine into a file, with all of its memory; and
//! `machine.json`, which says what the state is bound to. A machine that differs in any of it is refused before QEMU starts.

use super::folder::RunFolder;
use super::process::Qemu;
use super::qemu::{Boot, Machine, version_text};
use crate::guest::linux;
use crate::poll;
use crate::refusal::{Refusal, plain};
use anyhow::Context;
use mem_event::digest;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of the two files' form.
const VERSION: u32 = 1;
/// What stands before a saved machine's name where one is started from.
const PREFIX: &str = "saved:";
const STATE: &str = "state";
const ABOUT: &str = "machine.json";

/// A machine that is saved, or is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    name: String,
    folder: PathBuf,
}

/// What a state is bound to.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    version: u32,
    /// Names and values, in an order that begins with what is likeliest to differ.
    machine: Vec<(String, String)>,
    /// Bytes of the state.
    size: u64,
    /// Their digest.
    digest: u64,
}

/// What was saved.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// How long the guest ran before.
    pub ran: Duration,
    /// Bytes of the state.
    pub size: u64,
}

/// Where machines are saved: `machines` in `mem-event` in `$XDG_CACHE_HOME`, or in `$HOME/.cache`.
fn place() -> Result<PathBuf, Refusal> {
    linux::cache().map(|cache| cache.join("mem-event/machines")).ok_or_else(|| {
        Refusal::machine(
            "no folder to save machines in",
            "set HOME or XDG_CACHE_HOME to a folder that can be written to",
        )
    })
}

/// The names of the machines that are saved, sorted.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = place().ok().and_then(|place| std::fs::read_dir(place).ok());
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(ABOUT).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| is_a_name(name))
        .collect();
    names.sort();
    names
}

fn is_a_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.len() <= 64 && name.chars().all(plain)
}

/// Starts a machine, from a state where one is given; the guest does not run yet.
///
/// # Errors
/// As [`Machine::start`]; a state that is not there, is damaged, or is another machine's.
pub fn start(machine: &Machine, from: Option<&Saved>, folder: &RunFolder) -> anyhow::Result<Qemu> {
    let Some(saved) = from else { return machine.start(folder) };
    saved.check(machine)?;
    let mut waiting = machine.clone();
    waiting.extra.extend(["-incoming".into(), "defer".into()]);
    let mut qemu = waiting.start(folder)?;
    saved.load(&mut qemu)?;
    Ok(qemu)
}

impl Saved {
    /// The machine of this name, whether it is there or not.
    ///
    /// # Errors
    /// No name for a folder, or no place for it.
    pub fn named(name: &str) -> Result<Saved, Refusal> {
        if !is_a_name(name) {
            let remedy = "a name has letters, digits, -, _ and dots, begins with a letter or a digit, and has at most 64 of them";
            return Err(Refusal::usage(format!("{name:?} is no name for a saved machine"), remedy));
        }
        Ok(Saved { name: name.to_owned(), folder: place()?.join(name) })
    }

    /// What `from` says in a scenario or on a command line: `saved:NAME`, of a machine that is there.
    ///
    /// # Errors
    /// Something else, or no machine of that name.
    pub fn wanted(text: &str) -> Result<Saved, Refusal> {
        let Some(name) = text.strip_prefix(PREFIX) else {
            return Err(Refusal::usage(format!("{text:?} is nothing to start from"), "write saved:NAME"));
        };
        let saved = Saved::named(name)?;
        if saved.folder.join(ABOUT).is_file() {
            return Ok(saved);
        }
        let others = names();
        let known = if others.is_empty() { String::new() } else { format!(" (there are {})", others.join(", ")) };
        let what = format!("no machine is saved as {name:?}{known}");
        Err(Refusal::usage(what, format!("save one: mem-event save GUEST {name}")))
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Boots a machine, without the plugin, until its console says this, and saves it in place of what was saved by the name before.
    ///
    /// # Errors
    /// QEMU does not start or refuses; the guest ends, or does not say it in time; the files cannot be written.
    pub fn save(&self, machine: &Machine, says: &str, patience: Duration) -> anyhow::Result<Kept> {
        let about = bound_to(machine)?;
        let begun = Instant::now();
        let folder = RunFolder::create()?;
        let mut qemu = machine.start(&folder)?;
        qemu.qmp.execute("cont")?;
        wait_for_console(&qemu, says, begun + patience)?;
        qemu.qmp.execute("stop")?;
        let ran = begun.elapsed();
        let fresh = self.folder.with_file_name(format!(".{}.{}", self.name, std::process::id()));
        let written = self.write(&mut qemu, about, &fresh);
        if written.is_err() {
            // What was begun is of no use.
            let _ = std::fs::remove_dir_all(&fresh);
        }
        Ok(Kept { ran, size: written? })
    }

    fn write(&self, qemu: &mut Qemu, machine: Vec<(String, String)>, fresh: &Path) -> anyhow::Result<u64> {
        let unwritten = || format!("cannot write {}", fresh.display());
        std::fs::create_dir_all(fresh).with_context(unwritten)?;
        let state = fresh.join(STATE);
        let limits = json!({ "max-bandwidth": i64::MAX });
        qemu.qmp.execute_with("migrate-set-parameters", &limits)?;
        qemu.qmp.migrate("migrate", &json!({ "uri": uri(&state)? })).context("QEMU cannot save the machine")?;
        let bytes = std::fs::read(&state).with_context(unwritten)?;
        let size = bytes.len() as u64;
        let about = About { version: VERSION, machine, size, digest: digest(&bytes) };
        std::fs::write(fresh.join(ABOUT), serde_json::to_string_pretty(&about)? + "\n").with_context(unwritten)?;
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)
                .with_context(|| format!("cannot remove {}", self.folder.display()))?;
        }
        std::fs::rename(fresh, &self.folder).with_context(unwritten)?;
        Ok(size)
    }

    /// Whether the state is whole, and this machine's.
    ///
    /// # Errors
    /// It is not, and why.
    pub fn check(&self, machine: &Machine) -> anyhow::Result<()> {
        let about = self.about()?;
        let now = bound_to(machine)?;
        for (what, value) in &now {
            let then = about.machine.iter().find(|(name, _)| name == what).map_or("unknown", |(_, value)| value);
            if then != value {
                let what = format!(
                    "the saved machine {:?} is another one: its {what} is {then}, and this machine's is {value}",
                    self.name
                );
                let remedy = format!("start it as it was saved, or save it again: mem-event save GUEST {}", self.name);
                return Err(Refusal::usage(what, remedy).into());
            }
        }
        let state = self.folder.join(STATE);
        let bytes = std::fs::read(&state).map_err(|error| self.useless(&plain(&error)))?;
        if bytes.len() as u64 != about.size {
            return Err(self.useless(&format!("it has {} bytes of {}", bytes.len(), about.size)).into());
        }
        if digest(&bytes) != about.digest {
            return Err(self.useless("its bytes are not those that were saved").into());
        }
        Ok(())
    }

    fn about(&self) -> Result<About, Refusal> {
        let text = std::fs::read(self.folder.join(ABOUT)).map_err(|error| self.useless(&plain(&error)))?;
        let about: About = serde_json::from_slice(&text).map_err(|error| self.useless(&error.to_string()))?;
        match about.version {
            VERSION => Ok(about),
            other => Err(self.useless(&format!("it has form {other}, and this program reads form {VERSION}"))),
        }
    }

    fn useless(&self, why: &str) -> Refusal {
        let what = format!("the saved machine {:?} cannot be read: {why}", self.name);
        Refusal::usage(what, format!("save it again: mem-event save GUEST {}", self.name))
    }

    fn load(&self, qemu: &mut Qemu) -> anyhow::Result<()> {
        let from = json!({ "uri": uri(&self.folder.join(STATE))?, "exit-on-error": false });
        qemu.qmp.migrate("migrate-incoming", &from).map_err(|error| self.useless(&format!("{error:#}")).into())
    }
}

fn uri(path: &Path) -> anyhow::Result<String> {
    let path = path.to_str().with_context(|| format!("{} is not in UTF-8", path.display()))?;
    anyhow::ensure!(!path.contains(','), "{path} has a comma, which QEMU takes for the end of the name");
    Ok(format!("file:{path}"))
}

/// Waits until the guest has written this.
fn wait_for_console(qemu: &Qemu, says: &str, deadline: Instant) -> anyhow::Result<()> {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, qemu.console_file(), inotify::WatchFlags::MODIFY)?;
    let mut buffer = [0; 4096];
    while !qemu.console().contains(says) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let what =
                format!("the guest's console did not say {says:?} in time; its last line is {:?}", last_line(qemu));
            return Err(Refusal::usage(what, "wait for another text with --when, or longer with --deadline").into());
        }
        let mut waited = [PollFd::new(&watch, PollFlags::IN), PollFd::new(qemu, PollFlags::IN)];
        poll::poll(&mut waited, left)?;
        let ended = !waited[1].revents().is_empty();
        if ended && !qemu.console().contains(says) {
            let what =
                format!("the guest ended before its console said {says:?}; its last line is {:?}", last_line(qemu));
            return Err(Refusal::usage(what, "wait for another text with --when").into());
        }
        if ended {
            let what =
                format!("the guest was at its end before its machine was stopped, though its console said {says:?}");
            return Err(Refusal::usage(what, "wait for an earlier text, or have the guest wait behind it").into());
        }
        // That something was written is all that is asked.
        let _ = rustix::io::read(&watch, &mut buffer);
    }
    Ok(())
}

fn last_line(qemu: &Qemu) -> String {
    qemu.console().lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// What a machine's state is bound to, as names and values.
///
/// # Errors
/// A machine whose state is not all in QEMU's, or a file that cannot be read.
fn bound_to(machine: &Machine) -> anyhow::Result<Vec<(String, String)>> {
    let has_disk = machine.disk.is_some() || matches!(machine.boot, Boot::Disk { .. } | Boot::Efi(_));
    if has_disk {
        let what = "a machine with a disk is not saved: what its guest wrote there is not in its state";
        return Err(Refusal::usage(what, "save a guest that boots without one").into());
    }
    let text = |values: &[OsString]| {
        let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
        if values.is_empty() { "none".to_owned() } else { values.join(" ") }
    };
    let boot = match &machine.boot {
        Boot::Elf(image) => file(image)?,
        Boot::BzImage { kernel, initrd, append } => {
            let initrd = initrd.as_deref().map_or_else(|| Ok("none".to_owned()), file)?;
            format!("{}, first file system {initrd}, told {:?}", file(kernel)?, append.as_deref().unwrap_or_default())
        }
        Boot::Linux { kernel, append, work } => {
            let initrd = digest(&linux::initrd()?);
            let told = append.as_deref().unwrap_or_default();
            format!("{}, first file system {initrd:016x}, told {told:?}, with work: {work}", file(kernel)?)
        }
        Boot::Disk { .. } | Boot::Efi(_) => String::new(),
    };
    let icount = machine.icount.iter().flat_map(|icount| icount.arguments()).map(OsString::from).collect::<Vec<_>>();
    let values = [
        ("QEMU", version_text(&machine.qemu).unwrap_or_else(|| "unknown".into())),
        ("memory", format!("{} bytes", machine.memory)),
        ("number of vCPUs", machine.vcpus.to_string()),
        ("guest", boot),
        ("firmware", machine.firmware.as_deref().map_or_else(|| Ok("QEMU's".to_owned()), file)?),
        ("clock", text(&icount)),
        ("list of further arguments", text(&without_debugger(&machine.extra))),
    ];
    Ok(values.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// QEMU's arguments but for what lets a debugger in, of which no state depends.
fn without_debugger(arguments: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-gdb" {
            rest.next();
        } else {
            kept.push(argument.clone());
        }
    }
    kept
}

/// A file by its name and its content.
fn file(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{name} ({} bytes, {:016x})", bytes.len(), digest(&bytes)))
}
