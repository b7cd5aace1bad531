//! How long somebody is waited for who may be kept from coming by others.

use std::time::{Duration, Instant};

/// A wait that is over when the one waited for has not been on its way for so long.
#[derive(Debug)]
pub struct Patience {
    most: Duration,
    since: Instant,
}

impl Patience {
    /// It begins now.
    pub fn of(most: Duration) -> Patience {
        Patience { most, since: Instant::now() }
    }

    /// Whether it is over. `is_on_its_way` is asked when the time has passed, which begins anew where it says so.
    pub fn is_over(&mut self, is_on_its_way: impl FnOnce() -> bool) -> bool {
        if self.since.elapsed() <= self.most {
            return false;
        }
        let is_on_its_way = is_on_its_way();
        if is_on_its_way {
            self.since = Instant::now();
        }
        !is_on_its_way
    }
}
