//! The rights that pass without the engine, one byte a frame, read by every access without a lock.
//!
//! The engine alone writes, while its caller holds it exclusively; anybody reads. A reader may see the rights from just
//! before a change: the one that reduces rights must wait until no late access can follow ([`crate::Effect::Tighten`],
//! [`crate::Effect::Unmap`]) before the reduction is answered. Nothing else hangs on the order of these stores.

use crate::number::Gfn;
use crate::rights::Rights;
use std::sync::atomic::{AtomicU8, Ordering};

/// A table of atomics, shared with the fast path.
#[derive(Debug)]
pub struct PublishedRights {
    frames: Box<[AtomicU8]>,
}

impl PublishedRights {
    pub(crate) fn new(frames: usize) -> PublishedRights {
        PublishedRights { frames: (0..frames).map(|_| AtomicU8::new(0)).collect() }
    }

    pub(crate) fn publish(&self, gfn: Gfn, rights: Rights) {
        if let Some(frame) = usize::try_from(gfn.0).ok().and_then(|at| self.frames.get(at)) {
            frame.store(rights.bits(), Ordering::Release);
        }
    }

    /// The rights of a frame that need no word from the engine: empty unless it is RAM with memory behind it.
    #[must_use]
    #[inline]
    pub fn allowed(&self, gfn: Gfn) -> Rights {
        match usize::try_from(gfn.0).ok().and_then(|at| self.frames.get(at)) {
            Some(frame) => Rights::from_bits(frame.load(Ordering::Acquire)),
            None => Rights::NONE,
        }
    }

    /// How many frame numbers the table covers.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.len() as u64
    }
}
