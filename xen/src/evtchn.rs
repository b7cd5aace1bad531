//! The event channels of one process. A descriptor of `/dev/xen/evtchn` is an epoll set of what the engine signals, so the tool
//! polls it like any other. A port that was read is masked: it is in the set once, until the tool unmasks it.

use crate::errno::Errno;
use mem_event::Ring;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The engine's end of a ring's channel has this number more than the ring.
pub const REMOTE: u32 = 40;

/// A bound port.
#[derive(Debug)]
pub struct Port {
    /// Of which open device.
    pub device: u32,
    /// Whose ring.
    pub domain: u16,
    /// Which ring.
    pub ring: Ring,
    /// What the engine signals.
    pub signalled: Arc<OwnedFd>,
}

/// All ports.
#[derive(Debug, Default)]
pub struct Ports(BTreeMap<u32, Port>);

const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);

impl Ports {
    /// Binds a port; it is pending once at first, as in Xen.
    ///
    /// # Errors
    /// EINVAL: the channel is bound, and no port of a ring before it; else what the kernel refuses.
    pub fn bind(&mut self, set: BorrowedFd<'_>, port: Port) -> Result<u32, Errno> {
        // A port that was bound before its ring was disabled stays, and hears nothing more.
        if self.0.values().any(|other| Arc::ptr_eq(&other.signalled, &port.signalled)) {
            return Err(Errno::EINVAL);
        }
        let number = (1..).find(|number| !self.0.contains_key(number)).ok_or(Errno::ENOMEM)?;
        epoll::add(set, &*port.signalled, EventData::new_u64(number.into()), ONCE)?;
        crate::ring::signal(&port.signalled);
        self.0.insert(number, port);
        Ok(number)
    }

    /// A port of this device.
    ///
    /// # Errors
    /// ENOTCONN: it has no such port.
    pub fn of(&self, device: u32, number: u32) -> Result<&Port, Errno> {
        self.0.get(&number).filter(|port| port.device == device).ok_or(Errno::ENOTCONN)
    }

    /// Unmasks a port. One that is none of this device's is nobody's business, as in Linux's driver.
    pub fn unmask(&self, set: BorrowedFd<'_>, device: u32, number: u32) {
        if let Ok(port) = self.of(device, number) {
            // It fails where the tool has closed its descriptor meanwhile.
            let _ = epoll::modify(set, &*port.signalled, EventData::new_u64(number.into()), ONCE);
        }
    }

    /// Ends a port.
    ///
    /// # Errors
    /// ENOTCONN: this device has no such port.
    pub fn unbind(&mut self, set: BorrowedFd<'_>, device: u32, number: u32) -> Result<(), Errno> {
        let signalled = Arc::clone(&self.of(device, number)?.signalled);
        self.0.remove(&number);
        epoll::delete(set, &*signalled)?;
        Ok(())
    }

    /// The device is closed: its ports end.
    pub fn close(&mut self, device: u32) {
        self.0.retain(|_, port| port.device != device);
    }

    /// The numbers of a device's ports.
    #[must_use]
    pub fn numbers(&self, device: u32) -> Vec<u32> {
        self.0.iter().filter(|(_, port)| port.device == device).map(|(number, _)| *number).collect()
    }
}
