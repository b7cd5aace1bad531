//! Which frame a pager evicts next.

use super::recent::Recent;
use crate::scenario::settings::Policy;
use mem_event::{Gfn, PAGE_SIZE};
use std::collections::HashSet;

/// Frames below one mebibyte are the firmware's and devices'.
const FIRST_FRAME: u64 = 0x100;
/// xenpaging's number of frames that came in lately and stay.
const RECENT: usize = 16384;

/// The frames of RAM of QEMU's `q35` machine: from 0, and from 4 GiB where there are too many for below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    low: u64,
    high: u64,
}

impl Ram {
    /// The frames of a machine with so many bytes.
    #[must_use]
    pub fn of(bytes: u64) -> Ram {
        let frames = bytes / PAGE_SIZE as u64;
        let low = if frames >= 0xb_0000 { frames.min(0x8_0000) } else { frames };
        Ram { low, high: frames - low }
    }

    /// How many of them a pager may evict.
    #[must_use]
    pub fn count(self) -> u64 {
        self.low.saturating_sub(FIRST_FRAME) + self.high
    }

    /// One of those.
    #[must_use]
    pub fn frame(self, index: u64) -> Gfn {
        let gfn = index + FIRST_FRAME;
        Gfn(if gfn < self.low { gfn } else { gfn - self.low + 0x10_0000 })
    }
}

/// Chooses.
#[derive(Debug)]
pub struct Chooser {
    policy: Policy,
    ram: Ram,
    hand: u64,
    /// What came in lately (`mru`).
    recent: Recent,
    /// What came in or was touched since the hand last came by (`clock`).
    referenced: HashSet<Gfn>,
    /// The generator's state (`random`).
    random: u64,
}

impl Chooser {
    /// A chooser among these frames; the scan begins in their middle, as xenpaging's.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, ram: Ram) -> Chooser {
        let (recent, referenced) = (Recent::new(0), HashSet::new());
        Chooser { policy, ram, hand: ram.count() / 2, recent, referenced, random: seed }
    }

    /// How many frames there are to choose from.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ram.count()
    }

    /// The guest may hold so many frames from now on: not more than a quarter of them is spared for having come in lately.
    pub fn hold_to(&mut self, frames: u64) {
        self.recent = Recent::new(RECENT.min(usize::try_from(frames / 4).unwrap_or(usize::MAX)));
    }

    /// A frame came in, or was touched between its nomination and its eviction.
    pub fn used(&mut self, gfn: Gfn) {
        match self.policy {
            Policy::Mru => self.recent.add(gfn),
            Policy::Clock => {
                self.referenced.insert(gfn);
            }
            Policy::Random => {}
        }
    }

    /// The next one to evict. `None` where the policy spares the one that it looked at; with `spare` off it spares none and
    /// goes one by one.
    pub fn next(&mut self, spare: bool) -> Option<Gfn> {
        let gfn = self.ram.frame(if spare && self.policy == Policy::Random { self.roll() } else { self.advance() });
        let spared = match self.policy {
            Policy::Mru => self.recent.holds(gfn),
            // The second chance is used up by this look.
            Policy::Clock => self.referenced.remove(&gfn),
            Policy::Random => false,
        };
        (!(spare && spared)).then_some(gfn)
    }

    fn advance(&mut self) -> u64 {
        let at = self.hand;
        self.hand = (self.hand + 1) % self.ram.count();
        at
    }

    /// Steele's splitmix64: the sequence is the seed's alone.
    fn roll(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % self.ram.count()
    }
}

#[cfg(test)]
mod tests {
    use super::{Chooser, Ram};
    use crate::scenario::settings::Policy;
    use mem_event::Gfn;

    /// Eight frames, 0x100 to 0x107.
    fn chooser(policy: Policy) -> Chooser {
        Chooser::new(policy, 1, Ram::of(0x108 << 12))
    }

    fn round(chooser: &mut Chooser) -> Vec<Option<u64>> {
        (0..8).map(|_| chooser.next(true).map(|gfn| gfn.0 - 0x100)).collect()
    }

    #[test]
    fn memory_that_does_not_fit_below_goes_on_at_four_gibibytes() {
        let small = Ram::of(64 << 20);
        assert_eq!((small.count(), small.frame(small.count() - 1)), (0x4000 - 0x100, Gfn(0x3fff)));
        let large = Ram::of(3 << 30);
        assert_eq!(large.frame(0x8_0000 - 0x100 - 1), Gfn(0x7_ffff));
        assert_eq!(large.frame(0x8_0000 - 0x100), Gfn(0x10_0000));
        assert_eq!(large.frame(large.count() - 1), Gfn(0x13_ffff));
    }

    #[test]
    fn the_scan_begins_in_the_middle_and_leaves_out_what_came_in_lately() {
        let mut chooser = chooser(Policy::Mru);
        chooser.hold_to(8);
        [5, 6, 7].into_iter().for_each(|frame| chooser.used(Gfn(0x100 + frame)));
        let expected = [Some(4), Some(5), None, None, Some(0), Some(1), Some(2), Some(3)];
        assert_eq!(round(&mut chooser), expected, "a quarter of eight is spared");
        assert_eq!(round(&mut chooser), expected);
    }

    #[test]
    fn the_clock_gives_one_second_chance() {
        let mut chooser = chooser(Policy::Clock);
        [5, 6].into_iter().for_each(|frame| chooser.used(Gfn(0x100 + frame)));
        assert_eq!(round(&mut chooser)[..3], [Some(4), None, None]);
        assert_eq!(round(&mut chooser)[..3], [Some(4), Some(5), Some(6)]);
    }

    #[test]
    fn chance_is_the_seeds_alone() {
        let rounds = |seed| round(&mut Chooser::new(Policy::Random, seed, Ram::of(0x108 << 12)));
        assert_eq!(rounds(1), rounds(1));
        assert_ne!(rounds(1), rounds(2));
    }

    #[test]
    fn without_sparing_every_frame_comes_by() {
        for policy in [Policy::Mru, Policy::Clock, Policy::Random] {
            let mut chooser = chooser(policy);
            chooser.hold_to(8);
            chooser.used(Gfn(0x105));
            let mut all: Vec<u64> = (0..8).filter_map(|_| chooser.next(false)).map(|gfn| gfn.0 - 0x100).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
        }
    }
}
