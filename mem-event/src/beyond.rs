//! Frames beyond RAM: memory that a consumer gives the domain at free numbers, for what frames are to show in a view (Xen's
//! `XENMEM_populate_physmap` above the highest frame).
//!
//! The guest meets nothing there, as before; they count against no budget, and nothing but `Control::Drop` takes them away.

use crate::number::Gfn;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

/// Those that a domain has, and how many hold each there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Beyond(BTreeMap<u64, u8>);

impl Beyond {
    pub fn has(&self, gfn: Gfn) -> bool {
        self.0.contains_key(&gfn.0)
    }

    /// How many hold it, if it is one.
    pub fn pins(&self, gfn: Gfn) -> Option<u8> {
        self.0.get(&gfn.0).copied()
    }

    pub fn set_pins(&mut self, gfn: Gfn, pins: u8) {
        if let Some(place) = self.0.get_mut(&gfn.0) {
            *place = pins;
        }
    }

    pub fn add(&mut self, gfn: Gfn) {
        self.0.insert(gfn.0, 0);
    }

    pub fn remove(&mut self, gfn: Gfn) {
        self.0.remove(&gfn.0);
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// With how many hold each.
    pub fn all(&self) -> impl Iterator<Item = (Gfn, u8)> {
        self.0.iter().map(|(gfn, pins)| (Gfn(*gfn), *pins))
    }
}
