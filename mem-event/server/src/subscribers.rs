//! The clients that hear notices: a vCPU reached a checkpoint, the domain crashed.

use mem_event::message::Notice;
use rustix::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The sockets of all subscribers.
#[derive(Debug, Default)]
pub struct Subscribers(Mutex<Vec<Arc<OwnedFd>>>);

impl Subscribers {
    /// A client hears notices from now on. One that asks twice hears each once, so the list grows with clients alone.
    pub fn add(&self, client: Arc<OwnedFd>) {
        let mut subscribers = self.lock();
        if !subscribers.iter().any(|other| Arc::ptr_eq(other, &client)) {
            subscribers.push(client);
        }
    }

    /// A client is gone; says whether it was the last subscriber.
    pub fn remove(&self, client: &Arc<OwnedFd>) -> bool {
        let mut subscribers = self.lock();
        let before = subscribers.len();
        subscribers.retain(|other| !Arc::ptr_eq(other, client));
        before > 0 && subscribers.is_empty()
    }

    /// Tells all; says how many heard it.
    pub fn notify(&self, notice: &Notice) -> usize {
        let packet = notice.encode();
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        self.lock().iter().filter(|client| rustix::net::send(client, &packet, flags).is_ok()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
