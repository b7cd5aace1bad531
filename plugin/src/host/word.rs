//! A word that a stopped vCPU waits on, and the ways to end the wait: each costs its caller a system call only if the vCPU sleeps
//! that way. What the threads tell each other by it is [`Stopped`]; here are the system calls.

use mem_event::stopped::{Asleep, Stopped};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::thread::futex;
use rustix::time::Timespec;
use std::sync::OnceLock;
use std::time::Duration;

/// What one vCPU waits on. Only its own thread sleeps here; any thread may release it.
#[derive(Debug, Default)]
pub struct Word {
    state: Stopped,
    bell: OnceLock<OwnedFd>,
}

impl Word {
    /// The next wait lasts until `release`.
    pub fn stop(&self) {
        self.state.stop();
    }

    /// There is nothing to wait for after all; in the thread that would have waited.
    pub fn go(&self) {
        self.state.go();
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
        self.state.release()
    }

    /// Wakes the thread that was released.
    pub fn notify(&self, asleep: Asleep) {
        match asleep {
            Asleep::OnWord => {
                let _ = futex::wake(self.state.word(), futex::Flags::PRIVATE, u32::MAX >> 1);
            }
            Asleep::AtBell => {
                let _ = self.bell.get().map(|bell| rustix::io::write(bell, &1u64.to_ne_bytes()));
            }
        }
    }

    /// Ends the sleep of a thread, which goes on waiting. One that is about to fall asleep may miss it.
    pub fn wake(&self) {
        if let Some(asleep) = self.state.asleep() {
            self.notify(asleep);
        }
    }

    /// Whether a thread is to wait here.
    pub fn is_stopped(&self) -> bool {
        self.state.is_stopped()
    }

    /// Sleeps so long at most, unless it is released.
    pub fn sleep(&self, limit: Duration) {
        let how = Asleep::OnWord;
        if !self.state.falls_asleep(how) {
            return;
        }
        let _ = futex::wait(self.state.word(), futex::Flags::PRIVATE, how.word(), Some(&timespec(limit)));
        self.state.wakes();
    }

    /// Sleeps so long at most, unless it is released or the descriptor can be read.
    pub fn sleep_or(&self, readable: BorrowedFd<'_>, limit: Duration) {
        let Some(bell) = self.bell() else { return self.sleep(limit) };
        if !self.state.falls_asleep(Asleep::AtBell) {
            return;
        }
        let mut fds = [PollFd::from_borrowed_fd(readable, PollFlags::IN), PollFd::new(bell, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(limit)));
        let is_rung = !fds[1].revents().is_empty();
        if !self.state.wakes() || is_rung {
            // It was released, so the bell has been rung or is about to be; or it was woken. A ring that is left over only ends a later
            // sleep early.
            let _ = rustix::io::read(bell, &mut [0; 8]);
        }
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
