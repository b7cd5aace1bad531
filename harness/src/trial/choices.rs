//! Choices that a seed makes of what the engine leaves open: the order of requests, when they come, how many slots a ring has. The same
//! seed makes the same ones. What is done to the consumer itself is a matter of [`mem_event_server::chaos`].

use mem_event_server::chaos::draw::Draw;
use std::time::Duration;

/// The choices of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    draw: Draw,
    /// Choices until now.
    made: u64,
}

/// The place of these choices among a seed's draws: the faults have others.
const PLACE: u64 = u64::MAX;
/// The longest delay of a request, in microseconds.
const DELAY: usize = 1_000;
/// One in so many requests is delayed.
const DELAYED: usize = 16;

impl Choices {
    /// From this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Choices {
        Choices { draw: Draw(seed), made: 0 }
    }

    /// A number below this one, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.made += 1;
        usize::try_from(self.draw.number(PLACE, self.made) % limit as u64).unwrap_or(0)
    }

    /// How long the next input waits, if it does.
    pub fn delay(&mut self) -> Option<Duration> {
        let length = self.below(DELAY);
        (self.below(DELAYED) == 0).then(|| Duration::from_micros(length as u64))
    }

    /// How many slots a ring gets: 1, 2 or 4, so that it is full all the time.
    pub fn slots(&mut self) -> u32 {
        1 << self.below(3)
    }
}
