//! The foreign mappings of a connection.

use crate::answer::{outcome, refused};
use crate::hypercalls::Hypercalls;
use mem_event::message::Reply;
use mem_event::{Control, Errno, Gfn, Outcome};
use std::collections::BTreeMap;

/// Foreign mappings of one connection: 4 GiB of frames.
pub const MOST: usize = 1 << 20;

/// How often each frame is mapped, and whether any of these mappings may be written.
#[derive(Debug, Default)]
pub struct Pins {
    frames: BTreeMap<Gfn, Mapped>,
    count: usize,
}

#[derive(Debug, Default)]
struct Mapped {
    times: usize,
    writable: bool,
}

impl Pins {
    /// Whether there is no room for one more.
    pub fn is_full(&self) -> bool {
        self.count >= MOST
    }

    /// A mapping begins.
    pub fn add(&mut self, gfn: Gfn, writable: bool) {
        let mapped = self.frames.entry(gfn).or_default();
        mapped.times += 1;
        mapped.writable |= writable;
        self.count += 1;
    }

    /// A mapping ends, and whether it may have been written; `None` where there is none. Which of a frame's mappings it is nobody says, so
    /// any may be the one that was written.
    pub fn remove(&mut self, gfn: Gfn) -> Option<bool> {
        let mapped = self.frames.get_mut(&gfn)?;
        let writable = mapped.writable;
        mapped.times -= 1;
        self.count -= 1;
        if mapped.times == 0 {
            self.frames.remove(&gfn);
        }
        Some(writable)
    }

    /// A frame that is mapped.
    pub fn any(&self) -> Option<Gfn> {
        self.frames.keys().next().copied()
    }

    /// Pins a frame that the client maps by itself, and says where it lies.
    pub fn map(&mut self, domain: &mut impl Hypercalls, connection: u32, (gfn, write): (Gfn, bool)) -> Reply {
        if let Err((errno, sentence)) = domain.memory(false) {
            return Reply::Refused(errno, sentence);
        }
        let pinned = domain.control(connection, Control::Pin { gfn }, None);
        match pinned {
            Outcome::Proceed => self.add(gfn, write),
            // Whatever it waits for: who maps a frame asks again after ENOENT alone.
            Outcome::Retry(_) => return refused(Errno::ENOENT, "the frame is on its way; map it again"),
            other => return outcome(other),
        }
        // Once it is pinned it stays where it is.
        match domain.place(gfn) {
            Ok((offset, beyond)) => Reply::Done([offset, u64::from(beyond), 0, 0, 0]),
            Err((errno, sentence)) => {
                self.unpin(domain, connection, gfn);
                Reply::Refused(errno, sentence)
            }
        }
    }

    /// A foreign mapping ends; `None` where this connection has none of this frame.
    pub fn unpin(&mut self, domain: &mut impl Hypercalls, connection: u32, gfn: Gfn) -> Option<Outcome> {
        if self.remove(gfn)? {
            domain.may_be_written(gfn);
        }
        Some(domain.control(connection, Control::Unpin { gfn }, None))
    }
}
