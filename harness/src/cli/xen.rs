//! `xen`: a tool of Xen's, with the library preloaded that answers what it asks of the hypervisor.

use super::arguments::Xen;
use super::xen_program::Program;
use crate::beside;
use crate::machine::spawn::apart;
use crate::refusal::Refusal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use xen::environment::{Environment, Place};
use xen::store::server;

/// The library, built with this program.
const LIBRARY: &str = "libmem_event_xen.so";
/// What the dynamic linker loads first.
const PRELOAD: &str = "LD_PRELOAD";

/// Where libxenstore looks for its store.
const STORE: &str = "XENSTORED_PATH";

/// `xen`: this process becomes the tool.
///
/// # Errors
/// What a user can put right, as a [`Refusal`].
pub fn xen(arguments: &Xen) -> anyhow::Result<u8> {
    let domains = arguments.domains.iter().map(|text| place(text)).collect::<Result<Vec<_>, _>>()?;
    let store = store_of(&domains);
    let [program, rest @ ..] = &arguments.program[..] else {
        return Err(Refusal::usage("no program is named", "name it after --").into());
    };
    let found = Program::find(program, arguments.version)?;
    let version = arguments.version.or(found.release).unwrap_or_default();
    let environment = Environment { domains, version, repairs: arguments.repair_xenpaging };
    let mut command = found.command();
    match store.map(|path| start_store(&path, &arguments.domains).map(|()| path)) {
        Some(Ok(path)) => drop(command.env(STORE, path)),
        Some(Err(error)) => eprintln!("mem-event xen: there is no xenstore: {error:#}"),
        None => {}
    }
    let mut preload = beside::find(LIBRARY)?.into_os_string();
    if let Some(others) = std::env::var_os(PRELOAD).filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let error = command.args(rest).envs(environment.variables()).env(PRELOAD, preload).exec();
    Err(Refusal::machine(
        format!("{} cannot be started: {error}", found.path.display()),
        "is it a program of this machine's?",
    )
    .into())
}

pub(super) fn place(text: &str) -> Result<Place, Refusal> {
    let parts = text.split_once('=').and_then(|(number, socket)| {
        let number = number.parse().ok().filter(|number| (1..0x7ff0).contains(number))?;
        let is_name = |name: &&str| {
            !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        };
        let (socket, name) = match socket.rsplit_once(',') {
            Some((before, name)) if is_name(&name) => (before, Some(name.to_owned())),
            _ => (socket, None),
        };
        // The tool may change its folder before it connects.
        Some(Place { number, socket: std::path::absolute(socket).ok()?, name })
    });
    parts.ok_or_else(|| {
        Refusal::usage(
            format!("{text:?} is no domain"),
            "write its number, 1 to 32751, and its plugin's socket: 1=/tmp/guest.sock",
        )
    })
}

/// The store is that of the domain with the lowest number, beside its plugin's socket.
fn store_of(domains: &[Place]) -> Option<PathBuf> {
    domains.iter().min_by_key(|place| place.number).map(|place| server::beside(&place.socket))
}

/// Joins it, or starts it; it is nobody's child then.
fn start_store(path: &Path, domains: &[String]) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("xenstore").arg(path);
    for domain in domains {
        command.arg("--domain").arg(domain);
    }
    // The store outlives the tool, and what was handed to the tool is not the store's.
    let output = apart(command.stdin(Stdio::null())).output()?;
    if !output.status.success() {
        anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("mem-event: "));
    }
    Ok(())
}
