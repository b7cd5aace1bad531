//! Which frames share their memory.

use crate::number::Gfn;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

/// Which frames share. A handle names one frame of memory; it is void once no frame shares it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Shares {
    pub handles: BTreeMap<u64, u64>,
    pub members: BTreeMap<u64, u64>,
    last: u64,
}

impl Shares {
    /// Begins a group of one frame; its handle.
    pub fn begin(&mut self, gfn: Gfn) -> u64 {
        self.last += 1;
        self.join(gfn, self.last);
        self.last
    }

    /// Takes a frame out of its group and says whether others are left in it.
    pub fn leave(&mut self, gfn: Gfn) -> bool {
        let handle = self.handles.remove(&gfn.0).unwrap_or_default();
        let Some(members) = self.members.get_mut(&handle) else { return false };
        *members -= 1;
        let left = *members > 0;
        if !left {
            self.members.remove(&handle);
        }
        left
    }

    pub fn join(&mut self, gfn: Gfn, handle: u64) {
        self.handles.insert(gfn.0, handle);
        *self.members.entry(handle).or_default() += 1;
    }

    /// Frames that show another's memory, and so cost none.
    pub fn saved(&self) -> u64 {
        (self.handles.len() - self.members.len()) as u64
    }

    pub fn has_company(&self, gfn: Gfn) -> bool {
        self.handles.get(&gfn.0).and_then(|handle| self.members.get(handle)).is_some_and(|members| *members > 1)
    }
}
