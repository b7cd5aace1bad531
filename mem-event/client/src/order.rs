//! What the toolstack has a pager do. In Xen the toolstack writes a target into xenstore, and xenpaging reads it there; here an order comes
//! on a socket that is handed over with the paging ring, and has a reply: how many frames were evicted for it.
//!
//! Each packet is one order or one reply, as text.

use crate::refusal::Lost;
use anyhow::Context;
use mem_event::{Gfn, PAGE_SIZE};
use rustix::net::{RecvFlags, SendFlags};
use std::fmt::{Display, Formatter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Evict these frames, as far as they can be.
    PageOut {
        /// The first.
        first: Gfn,
        /// How many.
        count: u64,
    },
    /// Hold the guest to so many frames from now on.
    Target {
        /// How many.
        frames: u64,
    },
}

impl Order {
    /// The longest order or reply, in bytes.
    pub const LONGEST: usize = 256;

    /// A target in bytes.
    #[must_use]
    pub fn target(bytes: u64) -> Order {
        Order::Target { frames: bytes / PAGE_SIZE as u64 }
    }

    /// `page-out FIRST COUNT` or `target FRAMES`, in decimal numbers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Order> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["page-out", first, count] => {
                Some(Order::PageOut { first: Gfn(first.parse().ok()?), count: count.parse().ok()? })
            }
            ["target", frames] => Some(Order::Target { frames: frames.parse().ok()? }),
            _ => None,
        }
    }
}

impl Display for Order {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Order::PageOut { first, count } => write!(f, "page-out {} {count}", first.0),
            Order::Target { frames } => write!(f, "target {frames}"),
        }
    }
}

/// A pager's end of the socket.
#[derive(Debug)]
pub struct Orders(OwnedFd);

impl Orders {
    /// The end that was handed over.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Orders {
        Orders(socket)
    }

    /// The next order, if one is here. It needs a reply: [`Orders::done`]. One that is none gets its refusal here.
    ///
    /// # Errors
    /// [`Lost`]: nobody orders any more, as the domain has ended.
    pub fn take(&self) -> anyhow::Result<Option<Order>> {
        loop {
            let mut bytes = [0; Order::LONGEST];
            let received =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::DONTWAIT));
            let length = match received {
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => return Err(Lost.into()),
                other => other.context("the socket for orders cannot be read")?.1,
            };
            let text = String::from_utf8_lossy(&bytes[..length.min(Order::LONGEST)]);
            match Order::parse(&text) {
                Some(order) => return Ok(Some(order)),
                None => self.say(&format!("no such order: {text}"))?,
            }
        }
    }

    /// The order is carried out; so many frames were evicted for it.
    ///
    /// # Errors
    /// [`Lost`], as [`Orders::take`].
    pub fn done(&self, evicted: u64) -> anyhow::Result<()> {
        self.say(&evicted.to_string())
    }

    fn say(&self, text: &str) -> anyhow::Result<()> {
        let bytes = &text.as_bytes()[..text.len().min(Order::LONGEST)];
        match rustix::io::retry_on_intr(|| rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)) {
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(Lost.into()),
            other => other.map(drop).context("the socket for orders takes no reply"),
        }
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{Order, Orders};
    use crate::refusal::Lost;
    use mem_event::Gfn;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

    #[test]
    fn an_order_reads_back_as_it_was_written() {
        for order in [Order::PageOut { first: Gfn(0x500), count: 64 }, Order::Target { frames: 320 }] {
            assert_eq!(Order::parse(&order.to_string()), Some(order));
        }
        for text in ["", "page-out", "page-out 1", "page-out 1 2 3", "target x", "target -1", "evict 1 2"] {
            assert_eq!(Order::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused_and_the_next_one_is_taken() {
        let (toolstack, pager) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let orders = Orders::new(pager);
        assert_eq!(orders.take().unwrap(), None);
        for text in ["dance", "target 7"] {
            rustix::net::send(&toolstack, text.as_bytes(), SendFlags::empty()).unwrap();
        }
        assert_eq!(orders.take().unwrap(), Some(Order::Target { frames: 7 }));
        orders.done(3).unwrap();
        let said = || {
            let mut bytes = [0; 64];
            let (_, length) = rustix::net::recv(&toolstack, &mut bytes[..], RecvFlags::DONTWAIT).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert_eq!([said(), said()], ["no such order: dance", "3"]);
        drop(toolstack);
        assert!(orders.take().unwrap_err().is::<Lost>(), "nobody orders any more");
    }
}
