//! `xen`: a tool of Xen's, with the library preloaded that answers what it asks of the hypervisor.

use super::arguments::Xen;
use crate::beside;
use crate::refusal::Refusal;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use xen::environment::{Environment, Place};

/// The library, built with this program.
const LIBRARY: &str = "libmem_event_xen.so";
/// Where Debian keeps a release's programs.
const FOLDERS: &str = "/usr/lib";
/// What the dynamic linker loads first.
const PRELOAD: &str = "LD_PRELOAD";

/// `xen`: this process becomes the tool.
///
/// # Errors
/// What a user can put right, as a [`Refusal`].
pub fn xen(arguments: &Xen) -> anyhow::Result<u8> {
    let domains = arguments.domains.iter().map(|text| place(text)).collect::<Result<_, _>>()?;
    let environment = Environment { domains, version: arguments.version };
    let [program, rest @ ..] = &arguments.program[..] else {
        return Err(Refusal::usage("no program is named", "name it after --").into());
    };
    let found = find(program)?;
    let mut preload = beside::find(LIBRARY)?.into_os_string();
    if let Some(others) = std::env::var_os(PRELOAD).filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    let error = Command::new(&found).args(rest).envs(environment.variables()).env(PRELOAD, preload).exec();
    Err(Refusal::machine(
        format!("{} cannot be started: {error}", found.display()),
        "is it a program of this machine's?",
    )
    .into())
}

fn place(text: &str) -> Result<Place, Refusal> {
    let parts = text.split_once('=').and_then(|(number, socket)| {
        let number = number.parse().ok().filter(|number| (1..0x7ff0).contains(number))?;
        // The tool may change its folder before it connects.
        Some(Place { number, socket: std::path::absolute(socket).ok()? })
    });
    parts.ok_or_else(|| {
        Refusal::usage(
            format!("{text:?} is no domain"),
            "write its number, 1 to 32751, and its plugin's socket: 1=/tmp/guest.sock",
        )
    })
}

/// A program by its path, else in PATH, else where Debian keeps Xen's, of the newest release that is there.
fn find(program: &OsStr) -> Result<PathBuf, Refusal> {
    let path = Path::new(program);
    if path.components().count() > 1 {
        return Ok(path.into());
    }
    let listed = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&listed).collect();
    let mut releases: Vec<OsString> = std::fs::read_dir(FOLDERS)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    releases.retain(|name| name.to_string_lossy().starts_with("xen-"));
    releases.sort();
    folders.extend(releases.iter().rev().map(|release| Path::new(FOLDERS).join(release).join("bin")));
    folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file()).ok_or_else(|| {
        Refusal::machine(
            format!("there is no program {}", path.display()),
            "name its path, or install it; Debian has Xen's in xen-utils-4.17 (Debian 12) and xen-utils-4.20 (Debian 13)",
        )
    })
}
