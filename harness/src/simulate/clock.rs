//! Virtual time: what is due, in the order in which it is due. Of what is due at the same moment, what was set first comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A vCPU makes its next event.
    Event(u32),
    /// A vCPU that was woken runs, and tries again.
    Retry(u32),
    /// A vCPU that has claimed a slot puts its request.
    Put(u32),
    /// A foreign producer makes its next event, or tries again with the one that was refused.
    Foreign(u32),
    /// A foreign producer that has claimed a slot puts its request.
    ForeignPut(u32),
    /// A consumer has been at work with what it has taken, and answers.
    Served(u32),
    /// A consumer that was signalled looks at its ring.
    Signalled(u32),
}

const KINDS: u32 = 7;

impl Due {
    fn packed(self) -> u32 {
        let (of, kind) = match self {
            Due::Event(of) => (of, 0),
            Due::Retry(of) => (of, 1),
            Due::Put(of) => (of, 2),
            Due::Foreign(of) => (of, 3),
            Due::ForeignPut(of) => (of, 4),
            Due::Served(of) => (of, 5),
            Due::Signalled(of) => (of, 6),
        };
        of * KINDS + kind
    }

    fn unpacked(packed: u32) -> Due {
        let of = packed / KINDS;
        match packed % KINDS {
            0 => Due::Event(of),
            1 => Due::Retry(of),
            2 => Due::Put(of),
            3 => Due::Foreign(of),
            4 => Due::ForeignPut(of),
            5 => Due::Served(of),
            _ => Due::Signalled(of),
        }
    }
}

/// What is due when. An entry is one number (time, order, what), so that comparing two is comparing numbers.
#[derive(Debug, Default)]
pub struct Clock {
    heap: BinaryHeap<Reverse<u128>>,
    /// What is on top has happened. Most of what happens sets one more thing, which takes its place at the cost of one way down the heap.
    happened: bool,
    order: u32,
    now: u64,
}

impl Clock {
    /// Now, in nanoseconds since the beginning.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Something will happen after so many nanoseconds.
    #[inline]
    pub fn set(&mut self, after: u64, due: Due) {
        let entry = u128::from(self.now + after) << 64 | u128::from(self.order) << 32 | u128::from(due.packed());
        self.order = self.order.wrapping_add(1);
        if std::mem::take(&mut self.happened) {
            if let Some(mut top) = self.heap.peek_mut() {
                *top = Reverse(entry);
            }
        } else {
            self.heap.push(Reverse(entry));
        }
    }

    /// Time goes on to what is due next; nothing where nothing is.
    #[inline]
    pub fn pass(&mut self) -> Option<Due> {
        if self.happened {
            self.heap.pop();
        }
        let Reverse(entry) = *self.heap.peek()?;
        self.happened = true;
        self.now = u64::try_from(entry >> 64).unwrap_or(u64::MAX);
        #[allow(clippy::cast_possible_truncation, reason = "the lowest part of the entry")]
        let packed = entry as u32;
        Some(Due::unpacked(packed))
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Due};

    #[test]
    fn what_is_due_first_comes_first_and_what_is_due_together_in_the_order_of_its_setting() {
        let mut clock = Clock::default();
        clock.set(5, Due::Event(1));
        clock.set(3, Due::Served(2));
        clock.set(5, Due::Retry(3));
        let order: Vec<(Due, u64)> = std::iter::from_fn(|| clock.pass().map(|due| (due, clock.now()))).collect();
        assert_eq!(order, [(Due::Served(2), 3), (Due::Event(1), 5), (Due::Retry(3), 5)]);
    }

    #[test]
    fn what_is_set_while_time_goes_is_due_from_then_on() {
        let mut clock = Clock::default();
        clock.set(10, Due::Signalled(4095));
        assert_eq!(clock.pass(), Some(Due::Signalled(4095)));
        clock.set(1, Due::Foreign(0));
        clock.set(0, Due::Put(7));
        assert_eq!((clock.pass(), clock.now()), (Some(Due::Put(7)), 10));
        assert_eq!((clock.pass(), clock.now()), (Some(Due::Foreign(0)), 11));
    }
}
