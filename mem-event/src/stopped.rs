//! One word that says whether a thread waits, and how it sleeps: who ends the wait learns from it whether a system call is needed, and which.
//!
//! Only its own thread stops and sleeps here; any thread may release it. No release is lost: the sleeper turns the word from stopped to the way it
//! sleeps in one step, which fails if it was released before; and who releases takes the word to "go on" in one step, and so knows how the
//! sleeper is to be woken. `tests/memory_order.rs` tries every order.

use crate::atomics::AtomicU32;
use std::sync::atomic::Ordering;

const GO: u32 = 0;
/// Stopped, and polling.
const STOPPED: u32 = 1;
/// Stopped, and asleep on this word.
const ASLEEP: u32 = 2;
/// Stopped, and asleep on descriptors, the bell among them.
const AT_BELL: u32 = 3;

/// How a thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asleep {
    /// On the word.
    OnWord,
    /// On descriptors, the bell among them.
    AtBell,
}

impl Asleep {
    /// What the word holds while the thread sleeps so: what the kernel compares before it lets the thread sleep.
    #[must_use]
    pub fn word(self) -> u32 {
        match self {
            Asleep::OnWord => ASLEEP,
            Asleep::AtBell => AT_BELL,
        }
    }

    fn of(word: u32) -> Option<Asleep> {
        [Asleep::OnWord, Asleep::AtBell].into_iter().find(|asleep| asleep.word() == word)
    }
}

/// The word.
#[derive(Debug, Default)]
pub struct Stopped(AtomicU32);

impl Stopped {
    /// The next wait lasts until `release`.
    pub fn stop(&self) {
        self.0.store(STOPPED, Ordering::Release);
    }

    /// There is nothing to wait for after all; in the thread that would have waited.
    pub fn go(&self) {
        self.0.store(GO, Ordering::Release);
    }

    /// Ends the wait. A thread that sleeps is still to be woken; waking it late only ends a later sleep early.
    #[must_use = "a sleeper does not see that it may go on"]
    pub fn release(&self) -> Option<Asleep> {
        Asleep::of(self.0.swap(GO, Ordering::AcqRel))
    }

    /// Whether the thread is to wait.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire) != GO
    }

    /// How the thread sleeps now.
    pub fn asleep(&self) -> Option<Asleep> {
        Asleep::of(self.0.load(Ordering::Acquire))
    }

    /// The thread is about to sleep so; false where it was released.
    #[must_use = "who was released must not sleep"]
    pub fn falls_asleep(&self, how: Asleep) -> bool {
        self.goes_to(how.word())
    }

    /// The thread does not sleep any more; false where it was released.
    pub fn wakes(&self) -> bool {
        self.goes_to(STOPPED)
    }

    /// The word itself, for the kernel.
    pub fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Still stopped, in another way; false where it was released.
    fn goes_to(&self, way: u32) -> bool {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now != GO).then_some(way)).is_ok()
    }
}
