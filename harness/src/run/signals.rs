//! SIGINT, SIGTERM and SIGHUP as something that can be waited for. Another SIGINT ends the program at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A SIGINT that follows the first so soon is the same one: a terminal sends it to a program and to the one that started it, which hands
/// it on.
const SAME: Duration = Duration::from_millis(100);

/// The SIGINTs so far.
#[derive(Debug, Default)]
struct Presses {
    first: Option<Instant>,
}

impl Presses {
    /// One came now: whether it is another one than the first.
    fn is_another(&mut self, now: Instant) -> bool {
        let first = *self.first.get_or_insert(now);
        now.duration_since(first) >= SAME
    }
}

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
        let (mut interrupts, interrupted) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGINT, interrupted)?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut presses = Presses::default();
            while interrupts.read_exact(&mut [0]).is_ok() {
                if presses.is_another(Instant::now()) {
                    std::process::exit(130);
                }
            }
        })?;
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

#[cfg(test)]
mod tests {
    use super::{Presses, SAME};
    use std::time::{Duration, Instant};

    #[test]
    fn a_second_interrupt_within_a_tenth_of_a_second_is_the_same_one() {
        let (mut presses, begun) = (Presses::default(), Instant::now());
        assert!(!presses.is_another(begun));
        assert!(!presses.is_another(begun) && !presses.is_another(begun + SAME - Duration::from_nanos(1)));
        assert!(presses.is_another(begun + SAME));
    }
}
