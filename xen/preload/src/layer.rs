//! The hypervisor of this process. Every call is made under its lock; no call waits for an event under it.

use crate::environment::environment;
use crate::region::Regions;
use crate::{mapping, memory};
use rustix::mm::ProtFlags;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use xen::connection::Connection;
use xen::environment::Environment;
use xen::errno::Errno;
use xen::hypervisor::Hypervisor;
use xen::tool::{Frame, Tool};

/// What is kept.
#[derive(Debug)]
pub struct Layer {
    /// The domains and event channels.
    pub xen: Hypervisor<Connection>,
    /// What the tool reserved.
    pub regions: Regions,
    /// How often `/dev/xen/evtchn` was opened.
    pub devices: u32,
    /// Whose connections these are: a child's go on from nothing.
    process: u32,
}

/// The tool's process.
#[derive(Debug)]
pub struct Process<'a>(pub &'a mut Regions);

impl Tool for Process<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno> {
        memory::read(address, into)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        memory::write(address, bytes)
    }

    fn writes(&self, address: u64) -> Result<bool, Errno> {
        self.0.protection(address).map(|protection| protection.contains(ProtFlags::WRITE)).ok_or(Errno::EINVAL)
    }

    fn map(
        &mut self,
        address: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        frame: Option<Frame>,
    ) -> Result<Option<Frame>, Errno> {
        let protection = self.0.protection(address).ok_or(Errno::EINVAL)?;
        mapping::replace(address, file, offset, protection)?;
        Ok(self.0.put(address, frame))
    }
}

fn hypervisor(environment: &Environment) -> Hypervisor<Connection> {
    let connections = environment.domains.iter().map(|place| (place.number, Connection::new(place.socket.clone())));
    let mut xen = Hypervisor::new(environment.version, connections);
    xen.repairs = environment.repairs;
    xen
}

static LAYER: Mutex<Option<Layer>> = Mutex::new(None);

/// Does something with the layer; nothing where there is no environment.
pub fn with<T>(act: impl FnOnce(&mut Layer) -> T) -> Option<T> {
    held(environment()?, &mut LAYER.lock().unwrap_or_else(PoisonError::into_inner), act)
}

/// The same, and nothing where the layer is held.
pub fn try_with<T>(act: impl FnOnce(&mut Layer) -> T) -> Option<T> {
    held(environment()?, &mut *LAYER.try_lock().ok()?, act)
}

fn held<T>(environment: &Environment, held: &mut Option<Layer>, act: impl FnOnce(&mut Layer) -> T) -> Option<T> {
    let process = std::process::id();
    let layer = held.get_or_insert_with(|| Layer {
        xen: hypervisor(environment),
        regions: Regions::default(),
        devices: 0,
        process,
    });
    if layer.process != process {
        layer.process = process;
        layer.regions.child();
        layer.xen = hypervisor(environment);
    }
    let value = act(layer);
    for (number, guest) in &layer.xen.guests {
        if let Some(why) = guest.domain.why_ended() {
            layer.xen.unknown.say(format!("there is no domain {number}: {why}"));
        }
    }
    for line in layer.xen.unknown.take() {
        // The tool may have closed it.
        let _ = writeln!(std::io::stderr(), "mem-event xen: {line}");
    }
    Some(value)
}
