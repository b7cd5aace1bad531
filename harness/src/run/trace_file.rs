//! The file that a run's trace goes to.

use crate::refusal::Refusal;
use mem_event::trace::MAGIC;
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The trace's file: made before anything starts, so that an unwritable path is refused; locked as long as the run may write it; removed
/// if nothing started.
#[derive(Debug)]
pub struct TraceFile {
    made: Option<PathBuf>,
    /// Holds the lock.
    _file: Option<File>,
    can_be_read: bool,
}

impl TraceFile {
    /// Makes the file, if a trace is wanted. One that is there is written anew if it is a trace or empty.
    ///
    /// # Errors
    /// The path cannot be written, another run writes it, or what is there is no trace.
    pub fn open(path: Option<&Path>) -> anyhow::Result<TraceFile> {
        let Some(path) = path else { return Ok(TraceFile { made: None, _file: None, can_be_read: false }) };
        let existed = path.exists();
        let refuse = |error: std::io::Error| {
            Refusal::usage(
                format!("cannot write the trace {}: {error}", path.display()),
                "name a file that can be written",
            )
        };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(refuse)?;
        // A pipe or a device has nothing that could be lost.
        let can_be_read = file.metadata().map_err(refuse)?.is_file();
        if can_be_read {
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
                let what = format!("another run writes the trace {}", path.display());
                Refusal::usage(what, "name another file, or wait for that run's end")
            })?;
            let mut beginning = Vec::new();
            let read = File::open(path).and_then(|there| there.take(MAGIC.len() as u64).read_to_end(&mut beginning));
            read.map_err(refuse)?;
            // Empty, or a trace: of this version or another, whole or cut.
            if !beginning.starts_with(MAGIC) && !MAGIC.starts_with(&beginning) {
                let what = format!("{} is there and is no trace: it is not overwritten", path.display());
                return Err(Refusal::usage(what, "name a new file, or remove that one").into());
            }
        }
        Ok(TraceFile { made: (!existed).then(|| path.to_owned()), _file: Some(file), can_be_read })
    }

    /// Whether there is a file that may be read while it is written, and again later: no pipe, and no device.
    #[must_use]
    pub fn can_be_read(&self) -> bool {
        self.can_be_read
    }

    /// Something has started: the file stays.
    pub fn keep(&mut self) {
        self.made = None;
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        if let Some(path) = self.made.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TraceFile;
    use crate::machine::folder::RunFolder;

    fn refusal(path: &std::path::Path) -> String {
        TraceFile::open(Some(path)).map(drop).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_trace_is_refused_and_stays_as_it_is() {
        let folder = RunFolder::create().unwrap();
        let path = folder.file("notes");
        for text in ["my only copy\n", "x", &"MEM".repeat(100)] {
            std::fs::write(&path, text).unwrap();
            assert!(refusal(&path).contains("is no trace: it is not overwritten"), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        for text in ["", "MEMEVEN", "MEMEVENT", "MEMEVENT\u{1}\0\0\0 of another version"] {
            std::fs::write(&path, text).unwrap();
            assert!(TraceFile::open(Some(&path)).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn a_trace_that_a_run_writes_is_refused_to_another_until_that_one_has_ended() {
        let folder = RunFolder::create().unwrap();
        let path = folder.file("trace");
        let mut first = TraceFile::open(Some(&path)).unwrap();
        first.keep();
        assert!(refusal(&path).contains("another run writes the trace"));
        drop(first);
        drop(TraceFile::open(Some(&path)).unwrap());
        assert!(path.exists(), "it was there before");
    }
}
