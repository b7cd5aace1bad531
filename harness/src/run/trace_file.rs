//! The file that a run's trace goes to.

use crate::refusal::Refusal;
use std::path::{Path, PathBuf};

/// The trace's file: made before anything starts, so that an unwritable path is refused; removed if nothing started.
#[derive(Debug)]
pub struct TraceFile {
    made: Option<PathBuf>,
}

impl TraceFile {
    /// Makes the file, if a trace is wanted.
    ///
    /// # Errors
    /// The path cannot be written.
    pub fn open(path: Option<&Path>) -> anyhow::Result<TraceFile> {
        let Some(path) = path else { return Ok(TraceFile { made: None }) };
        let existed = path.exists();
        let refuse = |error: std::io::Error| {
            Refusal::usage(
                format!("cannot write the trace {}: {error}", path.display()),
                "name a file that can be written",
            )
        };
        std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(refuse)?;
        Ok(TraceFile { made: (!existed).then(|| path.to_owned()) })
    }

    /// Something has started: the file stays.
    pub fn keep(mut self) {
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
