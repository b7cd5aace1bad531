//! What the service thread watches: one epoll set.

use crate::memory::userfault::Userfault;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// The service thread's epoll set.
static SET: OnceLock<OwnedFd> = OnceLock::new();

/// What the service's set watches: the number that comes with what is ready.
pub mod token {
    /// The listening socket.
    pub const LISTENER: u64 = 0;
    /// The domain's userfaultfd.
    pub const USERFAULT: u64 = 1;
    /// Some ring's event channel.
    pub const CHANNEL: u64 = 2;
    /// The first client; each has a number of its own.
    pub const CLIENT: u64 = 3;
}

/// The set, made when it is first needed.
///
/// # Errors
/// The kernel has no more descriptors.
pub fn set() -> std::io::Result<BorrowedFd<'static>> {
    if let Some(set) = SET.get() {
        return Ok(set.as_fd());
    }
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    Ok(SET.get_or_init(|| set).as_fd())
}

/// From now on the service hears when this can be read.
///
/// # Errors
/// The kernel's error.
pub fn watch(source: impl AsFd, token: u64) -> std::io::Result<()> {
    Ok(epoll::add(set()?, source, EventData::new_u64(token), EventFlags::IN)?)
}

/// From now on the service watches the domain's userfaultfd.
///
/// # Errors
/// The kernel's error.
pub fn watch_userfault(userfault: &Userfault) -> std::io::Result<()> {
    match watch(userfault, token::USERFAULT) {
        // It is opened for watching, and registered once more for paging.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Whether the service hears when this, which it watches as a ring's event channel, can be read. An error means that the ring has
/// ended and left the set.
pub(super) fn listen(source: impl AsFd, on: bool) {
    let flags = if on { EventFlags::IN } else { EventFlags::empty() };
    if let Some(set) = SET.get() {
        let _ = epoll::modify(set, source, EventData::new_u64(token::CHANNEL), flags);
    }
}

/// The service does not watch this any more.
pub(super) fn forget(source: impl AsFd) {
    if let Some(set) = SET.get() {
        let _ = epoll::delete(set, source);
    }
}
