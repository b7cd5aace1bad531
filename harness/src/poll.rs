//! Waiting for descriptors.

use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Waits until one of these is ready, or for `limit`, or for a signal; how many are ready.
///
/// # Errors
/// The kernel refuses to wait.
pub fn poll(waited: &mut [PollFd<'_>], limit: Duration) -> anyhow::Result<usize> {
    let limit =
        Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    match rustix::event::poll(waited, Some(&limit)) {
        Err(rustix::io::Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

/// Waits until this can be read; false where the deadline comes first.
///
/// # Errors
/// The kernel refuses to wait.
pub fn readable(fd: impl AsFd, deadline: Instant) -> anyhow::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if poll(&mut [PollFd::new(&fd, PollFlags::IN)], left)? > 0 {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}
