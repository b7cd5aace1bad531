//! The pager's page file, kept for its successor. It is never read here.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// The file that the last pager handed over, if any.
#[derive(Debug, Default)]
pub struct PageFile(Option<OwnedFd>);

impl PageFile {
    /// Keeps a pager's page file in place of an older one.
    ///
    /// # Errors
    /// A sentence: it is no file.
    pub fn keep(&mut self, file: OwnedFd) -> Result<(), String> {
        let status = rustix::fs::fstat(&file).map_err(|error| format!("the page file: {error}"))?;
        if !rustix::fs::FileType::from_raw_mode(status.st_mode).is_file() {
            return Err("the descriptor is no file's".to_owned());
        }
        self.0 = Some(file);
        Ok(())
    }

    /// The file.
    pub fn kept(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }
}
