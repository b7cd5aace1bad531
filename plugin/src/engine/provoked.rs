//! The pages that are out of QEMU's mapping so that a touch of them is provoked, and those that are likely to be touched again.

use mem_event::Gfn;
use std::collections::BTreeSet;

/// How many are remembered as likely.
const MOST_LIKELY: usize = 64;

/// The pages.
#[derive(Debug, Default)]
pub struct Provoked {
    out: BTreeSet<Gfn>,
    likely: BTreeSet<Gfn>,
}

impl Provoked {
    /// The page goes out; says whether it was in.
    pub fn takes(&mut self, gfn: Gfn) -> bool {
        self.out.insert(gfn)
    }

    /// The page was touched; says whether it was out.
    pub fn is_touched(&mut self, gfn: Gfn) -> bool {
        self.out.remove(&gfn)
    }

    /// Whoever touched a page will soon touch this one.
    pub fn will_be_touched(&mut self, gfn: Gfn) {
        if self.likely.len() < MOST_LIKELY {
            self.likely.insert(gfn);
        }
    }

    /// Those that are likely to be touched, once.
    pub fn likely(&mut self) -> BTreeSet<Gfn> {
        std::mem::take(&mut self.likely)
    }
}
