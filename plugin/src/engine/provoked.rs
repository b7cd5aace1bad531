//! The pages that are out of QEMU's mapping so that a touch of them is provoked.

use mem_event::Gfn;
use std::collections::BTreeSet;

/// The pages.
#[derive(Debug, Default)]
pub struct Provoked(BTreeSet<Gfn>);

impl Provoked {
    /// The page goes out; says whether it was in.
    pub fn takes(&mut self, gfn: Gfn) -> bool {
        self.0.insert(gfn)
    }

    /// The page was touched; says whether it was out.
    pub fn is_touched(&mut self, gfn: Gfn) -> bool {
        self.0.remove(&gfn)
    }
}
