//! Choices that a seed makes: the same seed makes the same ones.

use std::time::Duration;

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Chaos(u64);

/// The longest delay of a request.
const DELAY: u64 = 1_000;

impl Chaos {
    /// From this seed.
    #[must_use]
    pub fn new(seed: u64) -> Chaos {
        Chaos(seed)
    }

    /// A number below this one, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).unwrap_or(0)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// How long the next input waits, if it does.
    pub fn delay(&mut self) -> Option<Duration> {
        let length = self.below(usize::try_from(DELAY).unwrap_or(1));
        self.once_in(16).then(|| Duration::from_micros(length as u64))
    }

    /// How many slots a ring gets: 1, 2 or 4, so that it is full all the time.
    pub fn slots(&mut self) -> u32 {
        1 << self.below(3)
    }
}
