//! All that one process knows of its domains: what each request of a tool is dispatched on.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::evtchn::{Port, Ports, REMOTE};
use crate::guest::{Guest, ring_of_frame};
use crate::layout::evtchn as request;
use crate::layout::record::Record;
use crate::tool::{Frame, Tool};
use crate::unknown::Unknown;
use crate::version::Version;
use mem_event::{Control, Gfn, Ring};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

/// The hypervisor of one process.
#[derive(Debug)]
pub struct Hypervisor<D> {
    /// The domains by their numbers.
    pub guests: BTreeMap<u16, Guest<D>>,
    /// Which Xen it plays.
    pub version: Version,
    /// The version of the toolstack's interface that the tool speaks, once it has.
    pub interface: Option<u32>,
    /// What is not there, and was asked for.
    pub unknown: Unknown,
    /// Whether answers on the paging ring are made whole that have another version.
    pub repairs: bool,
    ports: Ports,
}

impl<D: Domain> Hypervisor<D> {
    /// One with these domains.
    pub fn new(version: Version, domains: impl IntoIterator<Item = (u16, D)>) -> Hypervisor<D> {
        let guests = domains.into_iter().map(|(number, domain)| (number, Guest::new(domain))).collect();
        Hypervisor {
            guests,
            version,
            interface: None,
            unknown: Unknown::default(),
            repairs: false,
            ports: Ports::default(),
        }
    }

    /// A domain.
    ///
    /// # Errors
    /// ESRCH: there is none with this number.
    pub fn guest(&mut self, number: u16) -> Result<&mut Guest<D>, Errno> {
        self.guests.get_mut(&number).ok_or(Errno::ESRCH)
    }

    /// What is not there: ENOSYS, and a line.
    pub fn lacks(&mut self, what: &str) -> Errno {
        self.unknown.say(format!("{what} is not there (ENOSYS)"));
        Errno::ENOSYS
    }

    /// What cannot be: EOPNOTSUPP, and a line.
    pub fn cannot(&mut self, what: &str) -> Errno {
        self.unknown.say(format!("{what} is not supported (EOPNOTSUPP)"));
        Errno::EOPNOTSUPP
    }

    /// Maps a domain's frame where the tool reserved a page.
    ///
    /// # Errors
    /// EINVAL: there is no such frame to be mapped; ENOENT: it is paged out, and on its way.
    pub fn map(&mut self, tool: &mut dyn Tool, domain: u16, gfn: u64, address: u64) -> Result<(), Errno> {
        let guest = self.guest(domain)?;
        let replaced = match ring_of_frame(gfn) {
            Some(ring) => {
                let ring = guest.ring(ring);
                if !ring.populated {
                    return Err(Errno::EINVAL);
                }
                tool.map(address, ring.file()?, 0, None)?
            }
            None => {
                let frame = Frame { domain, gfn: Gfn(gfn) };
                let write = tool.writes(address)?;
                let mapped = match guest.domain.map(frame.gfn, write) {
                    Ok((memory, offset)) => tool.map(address, memory, offset, Some(frame)),
                    Err(Errno::EPERM) => {
                        let remedy = "start the plugin with foreign=map";
                        self.unknown.say(format!("frames of domain {domain} cannot be mapped (EPERM): {remedy}"));
                        return Err(Errno::EPERM);
                    }
                    Err(errno) => return Err(errno),
                };
                mapped.inspect_err(|_| self.unmapped(&[frame]))?
            }
        };
        self.unmapped(replaced.as_slice());
        Ok(())
    }

    /// The tool has unmapped these.
    pub fn unmapped(&mut self, frames: &[Frame]) {
        for Frame { domain, gfn } in frames {
            if let Ok(guest) = self.guest(*domain) {
                // Where the domain has ended there is nothing to be told.
                let _ = guest.domain.control(Control::Unpin { gfn: *gfn });
            }
        }
    }

    /// A request to `/dev/xen/evtchn`; the descriptor that it came by is the epoll set.
    ///
    /// # Errors
    /// What it is refused with.
    pub fn evtchn(
        &mut self,
        tool: &dyn Tool,
        device: u32,
        set: BorrowedFd<'_>,
        number: u64,
        argument: u64,
    ) -> Result<i64, Errno> {
        match number {
            request::BIND_INTERDOMAIN => {
                let bind = Record::read(tool, argument, request::bind::BYTES)?;
                let (domain, port) = (bind.get(request::bind::REMOTE_DOMAIN), bind.get(request::bind::REMOTE_PORT));
                self.bind(device, set, domain, port).map(i64::from)
            }
            request::UNBIND => {
                let port = port_of(tool, argument)?;
                self.ports.unbind(set, device, port).map(|()| 0)
            }
            request::NOTIFY => {
                let port = port_of(tool, argument)?;
                self.notify(device, port).map(|()| 0)
            }
            request::RESET => {
                for port in self.ports.numbers(device) {
                    self.ports.unbind(set, device, port)?;
                }
                Ok(0)
            }
            request::RESTRICT_DOMID => Err(Errno::ENOTTY),
            other => {
                self.lacks(&format!("request {other:#x} of /dev/xen/evtchn"));
                Err(Errno::ENOTTY)
            }
        }
    }

    fn bind(&mut self, device: u32, set: BorrowedFd<'_>, domain: u32, remote: u32) -> Result<u32, Errno> {
        let domain = u16::try_from(domain).map_err(|_| Errno::ESRCH)?;
        let number = remote.checked_sub(REMOTE).and_then(|number| u8::try_from(number).ok());
        let ring = number.and_then(Ring::from_number).ok_or(Errno::EINVAL)?;
        let signalled = self.guest(domain)?.ring(ring).signalled().ok_or(Errno::EINVAL)?;
        self.ports.bind(set, Port { device, domain, ring, signalled })
    }

    fn notify(&mut self, device: u32, number: u32) -> Result<(), Errno> {
        let &Port { domain, ring, .. } = self.ports.of(device, number)?;
        self.hear(domain, ring)
    }

    /// Takes the tool's answers on a ring.
    ///
    /// # Errors
    /// ESRCH.
    pub fn hear(&mut self, domain: u16, ring: Ring) -> Result<(), Errno> {
        let repairs = self.repairs && ring == Ring::Paging;
        let Some(version) = self.guest(domain)?.ring(ring).hear(repairs) else { return Ok(()) };
        let what = format!("an answer on the {ring} ring has version {version:#x}");
        let follows = match (repairs, ring) {
            (true, _) => "it and those like it are made whole",
            (false, Ring::Paging) => {
                "where Xen takes none but 7 and lets the vCPU stand; --repair-xenpaging makes such answers whole"
            }
            (false, _) => "where Xen takes none but 7 and lets the vCPU stand",
        };
        self.unknown.say(format!("{what}, {follows}"));
        Ok(())
    }

    /// Ports that the tool is about to be told of: their requests are on its pages, and they are masked.
    pub fn fired(&mut self, device: u32, numbers: &[u32]) -> Vec<u32> {
        let mut told = Vec::new();
        for number in numbers {
            let Ok(port) = self.ports.of(device, *number) else { continue };
            crate::ring::clear(&port.signalled);
            let (domain, ring) = (port.domain, port.ring);
            if let Ok(guest) = self.guest(domain) {
                guest.show(ring);
            }
            told.push(*number);
        }
        told
    }

    /// The tool has waited for something: it may look at its rings before it asks which ports are pending.
    pub fn show_more(&mut self) {
        self.guests.values_mut().for_each(Guest::show_more);
    }

    /// Unmasks a port.
    pub fn unmask(&self, device: u32, set: BorrowedFd<'_>, number: u32) {
        self.ports.unmask(set, device, number);
    }

    /// An open `/dev/xen/evtchn` is closed.
    pub fn close_evtchn(&mut self, device: u32) {
        self.ports.close(device);
    }
}

fn port_of(tool: &dyn Tool, argument: u64) -> Result<u32, Errno> {
    let mut bytes = [0; 4];
    tool.read(argument, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}
