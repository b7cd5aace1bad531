//! The frames that came in lately, which the pager spares (xenpaging's MRU list).

use mem_event::Gfn;
use std::collections::{HashMap, VecDeque};

/// A ring of frames; the oldest goes when a new one comes and the ring is full.
#[derive(Debug)]
pub struct Recent {
    order: VecDeque<Gfn>,
    /// How often a frame is in `order`.
    count: HashMap<Gfn, u32>,
    capacity: usize,
}

impl Recent {
    /// An empty ring; with no capacity it spares nothing.
    #[must_use]
    pub fn new(capacity: usize) -> Recent {
        Recent { order: VecDeque::with_capacity(capacity), count: HashMap::new(), capacity }
    }

    /// A frame came in.
    pub fn add(&mut self, gfn: Gfn) {
        if self.capacity == 0 {
            return;
        }
        if self.order.len() == self.capacity {
            self.drop_oldest();
        }
        self.order.push_back(gfn);
        *self.count.entry(gfn).or_default() += 1;
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        if let Some(count) = self.count.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&oldest);
            }
        }
    }

    /// Whether a frame is among them.
    #[must_use]
    pub fn holds(&self, gfn: Gfn) -> bool {
        self.count.contains_key(&gfn)
    }
}

#[cfg(test)]
mod tests {
    use super::Recent;
    use mem_event::Gfn;

    #[test]
    fn the_oldest_goes_first_and_a_frame_stays_while_it_is_in_twice() {
        let mut recent = Recent::new(2);
        recent.add(Gfn(1));
        recent.add(Gfn(1));
        recent.add(Gfn(2));
        assert!(recent.holds(Gfn(1)) && recent.holds(Gfn(2)));
        recent.add(Gfn(3));
        assert!(!recent.holds(Gfn(1)));
    }
}
