//! What `mem-event run --consumer CMD` hands over: a connection, rings that are enabled on it, and a way to say "ready". One of
//! the files with unsafe code: descriptors whose numbers stand in the environment.
//!
//! | variable | |
//! |---|---|
//! | `MEM_EVENT_SOCKET` | the control socket's path, for further connections |
//! | `MEM_EVENT_SOCKET_FD` | a connection that has said Hello; it holds the rings |
//! | `MEM_EVENT_RING_PAGING`, `_ACCESS`, `_SHARING` | `PAGE,SIGNALLED,SIGNAL,LAYOUT,SLOTS`: three descriptors, then the layout's number and the number of slots |
//! | `MEM_EVENT_ORDERS_FD` | with the paging ring: where the toolstack's orders come from |
//! | `MEM_EVENT_READY_FD` | write one byte: the guest starts when every consumer has |

#![allow(unsafe_code, reason = "a number in the environment becomes an owned descriptor; argued below")]

use crate::channel::{Channel, RingSettings};
use crate::order::Orders;
use crate::socket::Client;
use anyhow::{Context, bail};
use mem_event::{Layout, Ring};
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// The control socket's path.
pub const SOCKET: &str = "MEM_EVENT_SOCKET";
/// The connection.
pub const SOCKET_FD: &str = "MEM_EVENT_SOCKET_FD";
/// Where orders come from.
pub const ORDERS_FD: &str = "MEM_EVENT_ORDERS_FD";
/// Where "ready" is said.
pub const READY_FD: &str = "MEM_EVENT_READY_FD";

/// The variable that describes a ring.
#[must_use]
pub fn ring_variable(ring: Ring) -> &'static str {
    match ring {
        Ring::Paging => "MEM_EVENT_RING_PAGING",
        Ring::Access => "MEM_EVENT_RING_ACCESS",
        Ring::Sharing => "MEM_EVENT_RING_SHARING",
    }
}

/// What was handed over.
#[derive(Debug)]
pub struct Handed {
    /// The control socket's path, for further connections.
    pub path: PathBuf,
    /// The connection that holds the rings.
    pub client: Client,
    /// The rings, each with its page and its event channel.
    pub rings: Vec<(Ring, RingSettings, [OwnedFd; 3])>,
    /// What the toolstack orders, where the paging ring was handed over.
    pub orders: Option<Orders>,
    /// Taken by [`Handed::ready`].
    ready: OwnedFd,
}

/// A ring's descriptors and settings as text.
#[must_use]
pub fn ring_value(descriptors: [RawFd; 3], settings: RingSettings) -> String {
    let [page, signalled, signal] = descriptors;
    format!("{page},{signalled},{signal},{},{}", settings.layout as u8, settings.slots)
}

impl Handed {
    /// Takes what the environment names. It can be taken once in a process: the descriptors are owned from then on.
    ///
    /// # Errors
    /// This process was not started with `--consumer`, or took it already.
    pub fn take() -> anyhow::Result<Handed> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let text = |name: &str| -> anyhow::Result<OsString> {
            std::env::var_os(name)
                .with_context(|| format!("{name} is not set; start this with `mem-event run GUEST --consumer …`"))
        };
        if TAKEN.swap(true, Ordering::AcqRel) {
            bail!("what was handed over is taken already");
        }
        let path = PathBuf::from(text(SOCKET)?);
        let number =
            |name: &str| text(name)?.to_string_lossy().parse::<RawFd>().with_context(|| format!("{name} is no number"));
        let client = Client::greeted(own(number(SOCKET_FD)?)?);
        let ready = own(number(READY_FD)?)?;
        let orders = match std::env::var_os(ORDERS_FD) {
            Some(_) => Some(Orders::new(own(number(ORDERS_FD)?)?)),
            None => None,
        };
        let mut rings = Vec::new();
        for ring in Ring::ALL {
            if let Some(value) = std::env::var_os(ring_variable(ring)) {
                let (settings, descriptors) = parse_ring(&value.to_string_lossy())
                    .with_context(|| format!("{} is no ring: {}", ring_variable(ring), value.display()))?;
                let [page, signalled, signal] = descriptors;
                rings.push((ring, settings, [own(page)?, own(signalled)?, own(signal)?]));
            }
        }
        Ok(Handed { path, client, rings, orders, ready })
    }

    /// Takes the rings as channels. The connection goes with the first; the others get connections of their own for their calls.
    ///
    /// # Errors
    /// A ring's page cannot be mapped, or no further connection can be made.
    pub fn into_channels(self) -> anyhow::Result<(Vec<(Ring, Channel)>, Ready)> {
        let Handed { path, client, rings, ready, .. } = self;
        let mut holder = Some(client);
        let mut channels = Vec::with_capacity(rings.len());
        for (ring, settings, descriptors) in rings {
            let client = match holder.take() {
                Some(client) => client,
                None => Client::connect(&path)?,
            };
            channels.push((ring, Channel::new(client, ring, settings, descriptors)?));
        }
        Ok((channels, Ready(ready)))
    }

    /// Takes the only ring; the connection goes with it.
    ///
    /// # Errors
    /// None was handed over, or several.
    pub fn into_channel(self) -> anyhow::Result<(Ring, Channel, Ready)> {
        let (channels, ready) = self.into_channels()?;
        let [(ring, channel)]: [_; 1] =
            channels.try_into().map_err(|rings: Vec<_>| anyhow::anyhow!("{} rings where one is due", rings.len()))?;
        Ok((ring, channel, ready))
    }

    /// Says that this consumer is ready: the guest may start.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub fn ready(self) -> anyhow::Result<Client> {
        Ready(self.ready).say()?;
        Ok(self.client)
    }
}

/// The way to say "ready".
#[derive(Debug)]
pub struct Ready(OwnedFd);

impl Ready {
    /// The guest may start.
    ///
    /// # Errors
    /// Nobody listens any more.
    pub fn say(self) -> anyhow::Result<()> {
        rustix::io::write(&self.0, b"\n").context("nobody waits for this consumer any more")?;
        Ok(())
    }
}

fn parse_ring(value: &str) -> Option<(RingSettings, [RawFd; 3])> {
    let numbers: Vec<u32> = value.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [page, signalled, signal, layout, slots] = <[u32; 5]>::try_from(numbers).ok()?;
    let descriptor = |number: u32| RawFd::try_from(number).ok();
    let layout = [Layout::Flags16, Layout::Flags32, Layout::VmEvent7].into_iter().find(|one| *one as u32 == layout)?;
    Some((RingSettings { layout, slots }, [descriptor(page)?, descriptor(signalled)?, descriptor(signal)?]))
}

fn own(number: RawFd) -> anyhow::Result<OwnedFd> {
    if number <= 2 {
        bail!("descriptor {number} is standard input or output");
    }
    // SAFETY: borrowed only for the question whether it is open; a number that is not is answered with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)
        .with_context(|| format!("descriptor {number} was not handed over"))?;
    // SAFETY: it is open, as the call above says, and the parent opened it for this process alone to own. `take` runs once, and
    // the variables name each descriptor once, so nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::{parse_ring, ring_value};
    use crate::channel::RingSettings;
    use mem_event::Layout;

    #[test]
    fn a_ring_reads_back_as_it_was_written() {
        let settings = RingSettings { layout: Layout::VmEvent7, slots: 4 };
        let value = ring_value([5, 6, 7], settings);
        assert_eq!(value, "5,6,7,2,4");
        assert_eq!(parse_ring(&value), Some((settings, [5, 6, 7])));
    }

    #[test]
    fn what_is_no_ring_is_refused() {
        for value in ["", "5,6,7", "5,6,7,3,0", "5,6,x,1,0", "5,6,7,1,0,0", "-1,6,7,1,0"] {
            assert_eq!(parse_ring(value), None, "{value}");
        }
    }
}
