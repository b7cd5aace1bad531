//! SIGINT, SIGTERM and SIGHUP as something that can be waited for. The second SIGINT ends the program at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Readable when the program is to end.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
}

impl Signals {
    /// From now on the signals end a run in good order, and no longer the program.
    ///
    /// # Errors
    /// The kernel gives no pipe or takes no handler.
    pub fn catch() -> std::io::Result<Signals> {
        let (pipe, signalled) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let again = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&again))?;
        signal_hook::flag::register(SIGINT, again)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        Ok(Signals { pipe })
    }

    /// Whether one came since the last question.
    pub fn came(&mut self) -> bool {
        self.pipe.read(&mut [0; 16]).is_ok_and(|count| count > 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
