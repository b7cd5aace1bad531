//! How the thread that keeps time is woken when it sleeps for long.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// The sleep of one thread, which any other may cut short.
#[derive(Debug, Default)]
pub struct Alarm {
    sleeper: OnceLock<Thread>,
    sleeps_long: AtomicBool,
    has_happened: AtomicBool,
}

impl Alarm {
    /// Sleeps for so long, unless woken; `is_needed` is asked once more before.
    pub fn sleep(&self, length: Duration, is_needed: impl Fn() -> bool) {
        let _ = self.sleeper.get_or_init(std::thread::current);
        // In this order, here and in `ring`: either the sleeper sees what it is needed for, or it is seen to sleep.
        self.sleeps_long.swap(true, Ordering::SeqCst);
        if !is_needed() {
            std::thread::park_timeout(length);
        }
        self.sleeps_long.store(false, Ordering::SeqCst);
    }

    /// The sleeper is needed, after what it is needed for was made known.
    pub fn ring(&self) {
        if self.sleeps_long.swap(false, Ordering::SeqCst)
            && let Some(sleeper) = self.sleeper.get()
        {
            sleeper.unpark();
        }
    }

    /// Something has happened.
    pub fn happens(&self) {
        self.has_happened.store(true, Ordering::Relaxed);
    }

    /// Whether something has since this was asked last.
    pub fn has_happened(&self) -> bool {
        self.has_happened.swap(false, Ordering::Relaxed)
    }
}
