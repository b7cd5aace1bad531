//! The pages that are out of QEMU's mapping so that a touch of them is provoked.

use mem_event::Gfn;
use std::collections::BTreeSet;

/// The pages.
#[derive(Debug, Default)]
pub struct Provoked {
    out: BTreeSet<Gfn>,
    /// Those that were touched since they were asked for last: the guest uses them.
    back: Vec<Gfn>,
}

impl Provoked {
    /// The page goes out; says whether it was in.
    pub fn takes(&mut self, gfn: Gfn) -> bool {
        self.out.insert(gfn)
    }

    /// The page was touched; says whether it was out.
    pub fn is_touched(&mut self, gfn: Gfn) -> bool {
        let was_out = self.out.remove(&gfn);
        if was_out {
            self.back.push(gfn);
        }
        was_out
    }

    /// The pages that were touched since this was asked last.
    pub fn came_back(&mut self) -> Vec<Gfn> {
        std::mem::take(&mut self.back)
    }

    /// So many of the pages that are out, which come in without a touch; none if there is none.
    pub fn gives_back(&mut self, most: usize) -> Vec<Gfn> {
        self.back.clear();
        std::iter::from_fn(|| self.out.pop_first()).take(most).collect()
    }
}
