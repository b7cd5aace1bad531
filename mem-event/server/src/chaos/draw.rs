//! Numbers from a seed (splitmix64): the number at a place is a function of seed, place and position alone, so that what happens at one
//! place does not depend on how often anything happened at another.

/// Draws of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw(pub u64);

/// The step of splitmix64: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draw {
    /// Draw number `nth` at a place.
    #[must_use]
    pub const fn number(self, place: u64, nth: u64) -> u64 {
        let of_place = mix(self.0.wrapping_add(mix(place.wrapping_add(STEP))));
        mix(of_place.wrapping_add(nth.wrapping_mul(STEP)))
    }

    /// Whether draw number `nth` at a place is the one in so many.
    #[must_use]
    pub const fn hits(self, place: u64, nth: u64, one_in: u64) -> bool {
        self.number(place, nth).is_multiple_of(one_in)
    }
}

const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use super::Draw;

    #[test]
    fn seeds_places_and_positions_give_numbers_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for seed in 0..20 {
            for place in 0..20 {
                for nth in 0..20 {
                    assert!(seen.insert(Draw(seed).number(place, nth)), "{seed} {place} {nth}");
                }
            }
        }
        assert_eq!(Draw(7).number(1, 2), Draw(7).number(1, 2));
    }

    #[test]
    fn one_in_so_many_is_hit_about_as_often() {
        let hits = (0..8000).filter(|nth| Draw(7).hits(3, *nth, 8)).count();
        assert!((850..1150).contains(&hits), "{hits} of 8000");
    }
}
