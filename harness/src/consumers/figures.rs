//! What pagers did, counted.

/// What a pager did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Frames brought back.
    pub pages_in: u64,
    /// Frames evicted.
    pub pages_out: u64,
    /// Frames brought back before anybody asked, of those brought back.
    pub prefetched: u64,
}

impl Figures {
    /// Those of two pagers together.
    #[must_use]
    pub fn and(self, other: Figures) -> Figures {
        Figures {
            pages_in: self.pages_in + other.pages_in,
            pages_out: self.pages_out + other.pages_out,
            prefetched: self.prefetched + other.prefetched,
        }
    }
}
