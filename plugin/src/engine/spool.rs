//! Where the trace's bytes go: to a thread that writes them, so that no vCPU ever waits for a disk or for a pipe's reader.
//!
//! Whatever goes wrong ends the recording with one line, and the run goes on: no space, a limit on file sizes, a reader that
//! went away, one that is too slow by `QUEUE` blocks.

use rustix::process::{Resource, getrlimit};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Blocks that wait at most; of a busy run they are 64 KiB each.
const QUEUE: usize = 2048;
/// How long the end of a run waits for a reader of a pipe that does not read.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a writer hears once the recording has ended; why has been said.
pub const ENDED: &str = "the recording has ended";

/// A file that is written by a thread of its own.
pub struct Spool {
    path: PathBuf,
    blocks: Option<SyncSender<Vec<u8>>>,
    ended: Receiver<()>,
    patience: Duration,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// A new file, or a pipe that is there.
    ///
    /// # Errors
    /// It cannot be opened, or no thread be started.
    pub fn create(path: &Path) -> io::Result<Spool> {
        Spool::of(File::create(path)?, path)
    }

    /// A file or a pipe that is open, and what it is called.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn of(file: File, path: &Path) -> io::Result<Spool> {
        let (blocks, queue) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let (path, of_thread) = (path.to_owned(), path.to_owned());
        let thread = std::thread::Builder::new().name("mem-event-trace".into()).spawn(move || {
            write_all(file, &of_thread, &queue);
            // Nobody listens any more if the end of the run did not wait.
            let _ = end.try_send(());
        })?;
        Ok(Spool { path, blocks: Some(blocks), ended, patience: PATIENCE, thread: Some(thread) })
    }

    /// Its end is not waited for: this process goes on, and so does the thread.
    pub fn let_go(&mut self) {
        self.patience = Duration::ZERO;
    }
}

fn write_all(mut file: File, path: &Path, queue: &Receiver<Vec<u8>>) {
    let limit = if file.metadata().is_ok_and(|it| it.is_file()) { getrlimit(Resource::Fsize).current } else { None };
    let mut size = 0;
    for block in queue {
        size += block.len() as u64;
        // Writing past the limit would be a signal that ends the process.
        let written = match limit {
            Some(limit) if size > limit => Err(io::Error::other(format!("files may have {limit} bytes (ulimit -f)"))),
            _ => file.write_all(&block),
        };
        if let Err(error) = written {
            ends_here(path, &error.to_string());
            return;
        }
    }
}

fn ends_here(path: &Path, why: &str) {
    eprintln!("mem-event: the trace {} ends here, and the run goes on: {why}", path.display());
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = || io::Error::other(ENDED);
        match self.blocks.as_ref().ok_or_else(gone)?.try_send(bytes.to_vec()) {
            Ok(()) => Ok(bytes.len()),
            Err(TrySendError::Full(_)) => {
                let why = format!("what is to be written comes faster than it is taken, by {QUEUE} blocks");
                ends_here(&self.path, &why);
                self.blocks = None;
                Err(gone())
            }
            // The thread has said why.
            Err(TrySendError::Disconnected(_)) => Err(gone()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.blocks = None;
        if self.ended.recv_timeout(self.patience).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}
