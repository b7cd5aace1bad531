//! An input that hangs ends the process: a test that hangs tells nobody which input it was.

use crate::hex;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The input that runs, and since when; for as long as this lives.
#[derive(Debug)]
pub struct Watchdog(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    input: Vec<u8>,
    since: Option<Instant>,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, name: &str, longest: Duration) {
        let mut state = self.lock();
        while !state.over {
            if state.since.is_some_and(|since| since.elapsed() > longest) {
                eprintln!("{name} hangs for MEM_EVENT_FUZZ_INPUT={}", hex(&state.input));
                std::process::abort();
            }
            state = self.over.wait_timeout(state, longest / 8).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Watchdog {
    /// Starts watching.
    #[must_use]
    pub fn start(name: &'static str, longest: Duration) -> Watchdog {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        std::thread::spawn(move || watched.watch(name, longest));
        Watchdog(shared)
    }

    /// An input begins.
    pub fn begins(&self, input: &[u8]) {
        let mut state = self.0.lock();
        state.input.clear();
        state.input.extend_from_slice(input);
        state.since = Some(Instant::now());
    }

    /// It ended.
    pub fn ends(&self) {
        self.0.lock().since = None;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.over.notify_one();
    }
}
