//! A program of Xen's: where it is, of which release, and how it is started.

use crate::refusal::Refusal;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use xen::version::Version;

/// Where libraries lie below a root.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// The program that loads programs.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// A program.
#[derive(Debug)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its release, where its folder names it.
    pub release: Option<Version>,
}

impl Program {
    /// By its path; else in PATH; else where Debian keeps Xen's, of this release or the newest that is there; else where `ci/setup --xen` has
    /// unpacked them.
    ///
    /// # Errors
    /// There is none.
    pub fn find(name: &OsStr, wanted: Option<Version>) -> Result<Program, Refusal> {
        let path = Path::new(name);
        if path.components().count() > 1 {
            return Ok(Program::at(path.into()));
        }
        let listed = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&listed).map(|folder| folder.join(name)).map(Program::at);
        let of_releases = std::iter::once(PathBuf::from("/")).chain(unpacked()).flat_map(|root| of_root(&root, name));
        let fits = |program: &Program| wanted.is_none() || program.release.is_none() || program.release == wanted;
        in_path.chain(of_releases).filter(fits).find(|program| program.path.is_file()).ok_or_else(|| {
            Refusal::machine(
                format!("there is no program {}", path.display()),
                "name its path, install it (Debian has Xen's in xen-utils-4.17 and xen-utils-4.20), or unpack it: ci/setup --xen",
            )
        })
    }

    fn at(path: PathBuf) -> Program {
        let mut names =
            path.components().filter_map(|part| part.as_os_str().to_str()?.strip_prefix("xen-")?.parse().ok());
        let release = names.next_back().or_else(|| release_of(&root_of(&path)?));
        Program { path, release }
    }

    /// How it is started. One that was unpacked together with a C library is loaded with that one.
    #[must_use]
    pub fn command(&self) -> Command {
        let libraries = root_of(&self.path).map(|root| LIBRARIES.map(|folder| root.join(folder)));
        let loader = libraries
            .as_ref()
            .and_then(|folders| folders.iter().map(|folder| folder.join(LOADER)).find(|loader| loader.is_file()));
        let (Some(loader), Some(libraries)) = (loader, libraries) else { return Command::new(&self.path) };
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(std::env::join_paths(libraries).unwrap_or_default()).arg(&self.path);
        command
    }
}

/// The folder where a program was unpacked, if it was.
fn root_of(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let root = path.ancestors().find(|folder| folder.ends_with("usr"))?.parent()?;
    (root != Path::new("/")).then(|| root.to_owned())
}

/// The folders of the suites that are unpacked.
fn unpacked() -> Vec<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default();
    let mut suites = names(&cache.join("mem-event/xen"));
    suites.retain(|suite| suite.is_dir());
    suites
}

/// What a folder holds, in order.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The folders of releases below a root, the newest first.
fn folders(root: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xen-"));
    let mut folders = names(&root.join("usr/lib"));
    folders.retain(is_one);
    folders.reverse();
    folders
}

fn release_of(root: &Path) -> Option<Version> {
    folders(root).iter().find_map(|folder| folder.file_name()?.to_str()?.strip_prefix("xen-")?.parse().ok())
}

/// Where a program may be below a root.
fn of_root(root: &Path, name: &OsStr) -> Vec<Program> {
    let folders = folders(root).into_iter().map(|folder| folder.join("bin"));
    let beside: [OsString; 2] = ["usr/bin".into(), "usr/sbin".into()];
    folders.chain(beside.iter().map(|folder| root.join(folder))).map(|folder| Program::at(folder.join(name))).collect()
}
