//! A word that a stopped vCPU waits on, and the ways to end the wait: each costs its caller a system call only if the vCPU sleeps
//! that way.

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::thread::futex;
use rustix::time::Timespec;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const GO: u32 = 0;
/// Stopped, and polling.
const STOPPED: u32 = 1;
/// Stopped, and asleep on this word.
const ASLEEP: u32 = 2;
/// Stopped, and asleep on descriptors, the bell among them.
const AT_BELL: u32 = 3;

/// How a thread sleeps that was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asleep {
    /// On the word.
    OnWord,
    /// On descriptors, the bell among them.
    AtBell,
}

/// What one vCPU waits on. Only its own thread sleeps here; any thread may release it.
///
/// No release is lost: the sleeper turns the word from `STOPPED` to the way it sleeps in one step, which fails if it was released
/// before; and the thread that releases takes the word to `GO` in one step, and so knows how the sleeper is to be woken.
#[derive(Debug, Default)]
pub struct Word {
    state: AtomicU32,
    bell: OnceLock<OwnedFd>,
}

impl Word {
    /// The next wait lasts until `release`.
    pub fn stop(&self) {
        self.state.store(STOPPED, Ordering::Release);
    }

    /// There is nothing to wait for after all; in the thread that would have waited.
    pub fn go(&self) {
        self.state.store(GO, Ordering::Release);
    }

    /// Ends the wait.
    pub fn release(&self) {
        if let Some(asleep) = self.release_quietly() {
            self.notify(asleep);
        }
    }

    /// Ends the wait of a thread that polls. One that sleeps is still to be notified; a notification that comes late only ends a later
    /// sleep early.
    #[must_use = "a sleeper does not see that it may go on"]
    pub fn release_quietly(&self) -> Option<Asleep> {
        match self.state.swap(GO, Ordering::AcqRel) {
            ASLEEP => Some(Asleep::OnWord),
            AT_BELL => Some(Asleep::AtBell),
            _ => None,
        }
    }

    /// Wakes the thread that was released.
    pub fn notify(&self, asleep: Asleep) {
        match asleep {
            Asleep::OnWord => {
                let _ = futex::wake(&self.state, futex::Flags::PRIVATE, u32::MAX >> 1);
            }
            Asleep::AtBell => {
                let _ = self.bell.get().map(|bell| rustix::io::write(bell, &1u64.to_ne_bytes()));
            }
        }
    }

    /// Ends the sleep of a thread, which goes on waiting. One that is about to fall asleep may miss it.
    pub fn wake(&self) {
        match self.state.load(Ordering::Acquire) {
            ASLEEP => self.notify(Asleep::OnWord),
            AT_BELL => self.notify(Asleep::AtBell),
            _ => {}
        }
    }

    /// Whether a thread is to wait here.
    pub fn is_stopped(&self) -> bool {
        self.state.load(Ordering::Acquire) != GO
    }

    /// Sleeps so long at most, unless it is released.
    pub fn sleep(&self, limit: Duration) {
        if !self.goes_to(ASLEEP) {
            return;
        }
        let _ = futex::wait(&self.state, futex::Flags::PRIVATE, ASLEEP, Some(&timespec(limit)));
        self.goes_to(STOPPED);
    }

    /// Sleeps so long at most, unless it is released or the descriptor can be read.
    pub fn sleep_or(&self, readable: BorrowedFd<'_>, limit: Duration) {
        let Some(bell) = self.bell() else { return self.sleep(limit) };
        if !self.goes_to(AT_BELL) {
            return;
        }
        let mut fds = [PollFd::from_borrowed_fd(readable, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(limit)));
        let is_rung = !fds[1].revents().is_empty();
        if !self.goes_to(STOPPED) || is_rung {
            // It was released, so the bell has been rung or is about to be; or it was woken. A ring that is left over only ends a later
            // sleep early.
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
    }

    /// Still stopped, in another way; false where it was released.
    fn goes_to(&self, way: u32) -> bool {
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now != GO).then_some(way)).is_ok()
    }

    fn bell(&self) -> Option<&OwnedFd> {
        if self.bell.get().is_none() {
            let _ = self.bell.set(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?);
        }
        self.bell.get()
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(time.subsec_nanos()) }
}
