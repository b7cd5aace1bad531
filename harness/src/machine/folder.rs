//! A folder for a run's sockets and files, gone when the run is gone.
//!
//! The folder holds a lock on itself. What a killed run left behind has no holder, and the next run removes it.

use anyhow::Context;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{DirBuilder, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "mem-event-run-";

/// How long the path of a place for such folders may be: that of a socket, which lies in one, has at most 107 bytes.
const LONGEST_PLACE: usize = 107 - "/mem-event-run-4194304-4294967295/monitor".len();

/// Where run folders are made: among the temporary files, or in `/tmp` where their path is too long for a socket's.
fn place() -> PathBuf {
    let named = std::env::temp_dir();
    if named.as_os_str().len() > LONGEST_PLACE { PathBuf::from("/tmp") } else { named }
}

/// The folder of one run; mode 0700.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _lock: OwnedFd,
}

impl RunFolder {
    /// Makes a folder among the temporary files, and removes those that dead runs left.
    ///
    /// # Errors
    /// The place for temporary files cannot be written.
    pub fn create() -> anyhow::Result<RunFolder> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let place = place();
        remove_left_over(&place);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = place.join(format!("{PREFIX}{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| {
            format!(
                "cannot make a folder in {} (set TMPDIR to one that can, of at most {LONGEST_PLACE} bytes)",
                place.display()
            )
        })?;
        let lock = lock(&path).with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(RunFolder { path, _lock: lock })
    }

    /// A file in the folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// A file without a name among the temporary ones, mode 0600; it is gone with its last descriptor. `what` it is, for the error.
///
/// # Errors
/// No such file can be made there.
pub fn unnamed_file(what: &str) -> anyhow::Result<File> {
    let place = std::env::temp_dir();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&place, flags, Mode::RUSR | Mode::WUSR).with_context(|| {
        format!("cannot make {what} in {} (set TMPDIR to a folder on a disk file system)", place.display())
    })?;
    Ok(file.into())
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        // A folder that cannot be removed now is removed by a later run.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn lock(path: &Path) -> Option<OwnedFd> {
    let folder = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(folder)
}

/// A folder whose maker lives is locked; one just made is not locked yet, so its maker's number is looked at too.
fn remove_left_over(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(maker) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()) else { continue };
        if !Path::new("/proc").join(maker).exists() && lock(&entry.path()).is_some() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RunFolder;

    #[test]
    fn a_folder_goes_with_its_run() {
        let folder = RunFolder::create().unwrap();
        let file = folder.file("x");
        std::fs::write(&file, "x").unwrap();
        let second = RunFolder::create().unwrap();
        assert!(file.exists(), "a folder in use stays");
        drop(folder);
        assert!(!file.exists());
        drop(second);
    }
}
