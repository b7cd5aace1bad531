//! The foreign mappings of a connection.

use mem_event::Gfn;
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
}
