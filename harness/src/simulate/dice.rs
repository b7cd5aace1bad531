//! The draws of a run: a stream for each thing that is drawn, all from one seed, so that what is drawn of one does not depend on how often
//! another is drawn. Policies are compared on the same thoughts and services for as long as they ask for them in the same order.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// The streams.
#[derive(Debug)]
pub struct Dice {
    /// Times between events.
    pub think: Xoshiro256PlusPlus,
    /// What consumers take.
    pub service: Xoshiro256PlusPlus,
    /// How long woken vCPUs, signalled consumers and claims take.
    pub latency: Xoshiro256PlusPlus,
    /// Which ring, which kind, which requests are not answered.
    pub choice: Xoshiro256PlusPlus,
}

impl Dice {
    /// Those of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        let mut stream = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut next = || {
            stream.jump();
            stream.clone()
        };
        Dice { think: next(), service: next(), latency: next(), choice: next() }
    }
}
