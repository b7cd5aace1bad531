//! How one vCPU waits for the engine: what it waits for, since when, how it sleeps and what it has to ask again.

use crate::host::word::Word;
use mem_event::spin::{Spin, Window};
use mem_event::stopped::Asleep;
use mem_event::{Gfn, Rights, Ring};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a vCPU asked the engine when it was told to wait, and asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The instruction at which it asked.
    pub rip: u64,
    /// The access; none for a CPU event.
    pub access: Option<(Gfn, Rights)>,
}

impl Retry {
    /// Whether it is an access of this frame.
    pub fn is_of(&self, gfn: Gfn) -> bool {
        self.access.is_some_and(|(asked, _)| asked == gfn)
    }

    /// Whether an access at this instruction is the retry, or comes instead of it. The instruction's other accesses are neither:
    /// what was reserved for the one that waits would go back before that one retries.
    pub fn is_due(&self, rip: u64, access: (Gfn, Rights)) -> bool {
        rip != self.rip || self.access == Some(access)
    }
}

/// No ring.
const NONE: u8 = u8::MAX;

/// Since when times are counted.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The waiter's own data of one vCPU.
#[derive(Debug)]
pub struct Waiting {
    /// Stopped from the engine's word that the vCPU waits until it is released.
    pub word: Word,
    /// The ring whose answer or slot it waits for; `NONE` for none.
    ring: AtomicU8,
    /// What it asked when the engine told it to wait; none since it was let go on.
    retry: Mutex<Option<Retry>>,
    /// Whether there is a retry: asked at every miss of the page cache, and so without the lock.
    has_retry: AtomicBool,
    /// How long it spins.
    window: Mutex<Window>,
    /// Whether it wants a core: it runs the guest, or spins.
    busy: AtomicBool,
    /// When it began to wait, in milliseconds since the first that waited, and 1; 0 where it has not waited long enough to sleep.
    since: AtomicU64,
}

impl Waiting {
    /// Nothing to wait for.
    pub fn new(spin: Spin) -> Waiting {
        Waiting {
            word: Word::default(),
            ring: AtomicU8::new(NONE),
            retry: Mutex::default(),
            has_retry: AtomicBool::new(false),
            window: Mutex::new(Window::new(spin)),
            busy: AtomicBool::new(false),
            since: AtomicU64::new(0),
        }
    }

    /// The engine told the vCPU to wait. Under the engine's lock, so that a release cannot come before.
    pub fn stop(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.word.stop();
    }

    /// The engine did not stop the vCPU after all; in its own thread.
    pub fn go_on(&self) {
        self.word.go();
    }

    /// The vCPU is gone.
    pub fn end(&self) {
        self.go_on();
        self.set_ring(None);
        self.set_retry(None);
        self.set_busy(false);
        self.since.store(0, Ordering::Relaxed);
    }

    /// The engine releases the vCPU; if it sleeps, it is still to be notified.
    #[must_use = "a sleeper does not see that it may go on"]
    pub fn release(&self) -> Option<Asleep> {
        self.word.release_quietly()
    }

    /// It was released while it slept so.
    pub fn notify(&self, asleep: Asleep) {
        self.word.notify(asleep);
    }

    /// Whether the engine stopped the vCPU and has not released it.
    pub fn is_stopped(&self) -> bool {
        self.word.is_stopped()
    }

    /// What the vCPU asked when the engine told it to wait, unless it has been let go on since. A release may have come with a slot or a
    /// frame, which only a retry uses or gives back, also where what the vCPU wants is allowed by now: else it is kept from all
    /// others for ever.
    pub fn pending_retry(&self) -> Option<Retry> {
        if !self.has_retry.load(Ordering::Relaxed) {
            return None;
        }
        *self.retry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engine said: to wait and retry this, or not. In the vCPU's own thread.
    pub fn set_retry(&self, retry: Option<Retry>) {
        self.has_retry.store(retry.is_some(), Ordering::Relaxed);
        *self.retry.lock().unwrap_or_else(PoisonError::into_inner) = retry;
    }

    /// The ring that the vCPU waits for from now on, if any.
    pub fn set_ring(&self, ring: Option<Ring>) {
        self.ring.store(ring.map_or(NONE, |ring| ring as u8), Ordering::Relaxed);
    }

    /// The ring that it waits for.
    pub fn ring(&self) -> Option<Ring> {
        Ring::from_number(self.ring.load(Ordering::Relaxed))
    }

    /// How long it spins before it sleeps.
    pub fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it wants a core.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// It wants a core from now on, or sleeps.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Starts the clock unless it runs. Called where the vCPU goes to sleep: a wait that ends while it spins costs no look at the time.
    pub fn start_clock(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.restart_clock();
        }
    }

    /// The wait is counted from now.
    pub fn restart_clock(&self) {
        self.since.store(millis(BEGUN.elapsed()) + 1, Ordering::Relaxed);
    }

    /// For how many milliseconds the vCPU has waited.
    pub fn waited(&self) -> u32 {
        let since = self.since.load(Ordering::Relaxed);
        let waited = if since == 0 { 0 } else { (millis(BEGUN.elapsed()) + 1).saturating_sub(since) };
        u32::try_from(waited).unwrap_or(u32::MAX)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}
