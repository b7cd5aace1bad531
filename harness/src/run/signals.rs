//! SIGINT, SIGTERM and SIGHUP as something that can be waited for. The second SIGINT ends the program at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Readable when the program is to end.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
    came: Arc<AtomicBool>,
}

impl Signals {
    /// From now on the signals end a run in good order, and no longer the program.
    ///
    /// # Errors
    /// The kernel gives no pipe or takes no handler.
    pub fn catch() -> std::io::Result<Signals> {
        let (pipe, signalled) = UnixStream::pair()?;
        let came = Arc::new(AtomicBool::new(false));
        let again = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&again))?;
        signal_hook::flag::register(SIGINT, again)?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&came))?;
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        Ok(Signals { pipe, came })
    }

    /// Whether one came.
    #[must_use]
    pub fn came(&self) -> bool {
        self.came.load(Ordering::Relaxed)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
