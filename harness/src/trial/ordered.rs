//! What a pager was ordered to evict.

use mem_event::Gfn;
use mem_event_client::Order;
use std::ops::Range;

/// The frames of the orders so far.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    frames: Vec<Range<u64>>,
    /// It may choose by itself: it has a target to hold.
    chooses: bool,
}

impl Ordered {
    /// Another order, in the pager's words.
    pub fn add(&mut self, order: &str) {
        match Order::parse(order) {
            Some(Order::PageOut { first, count }) => self.frames.push(first.0..first.0.saturating_add(count)),
            Some(Order::Target { .. }) => self.chooses = true,
            None => {}
        }
    }

    /// Whether a frame may go by what was ordered.
    #[must_use]
    pub fn contains(&self, gfn: Gfn) -> bool {
        self.chooses || self.frames.iter().any(|frames| frames.contains(&gfn.0))
    }
}
