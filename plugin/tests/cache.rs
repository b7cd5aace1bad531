//! The page cache against a set of pages.

use mem_event_plugin::insn::cache::{self, PAGES, Part};
use std::collections::HashSet;

const PAGE: u64 = 4096;

/// The same numbers in every run (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[test]
fn nothing_is_allowed_that_was_not_since_the_cache_was_emptied_last() {
    let cache = cache::of(7).expect("vCPU 7 has a cache");
    let mut state = 1;
    let mut allowed = HashSet::new();
    cache.empty();
    // More often emptied than there are generations, some pages apart that have one slot.
    for step in 0..200_000u64 {
        let page =
            random(&mut state) % 8 + (random(&mut state) % 3) * PAGES as u64 + ((1 << 52) - 3 * PAGES as u64 - 8);
        let part = if random(&mut state) & 1 == 0 { Part::Read } else { Part::Write };
        if cache.allows(page * PAGE, part) {
            assert!(allowed.contains(&(page, part as u8)), "page {page:#x} at step {step}");
        }
        match random(&mut state) % 16 {
            0 => {
                cache.empty();
                allowed.clear();
            }
            1..6 => {
                cache.revalidate();
                cache.allow(page * PAGE, part);
                allowed.insert((page, part as u8));
                assert!(cache.allows(page * PAGE, part), "page {page:#x} at step {step}");
            }
            _ => {}
        }
    }
}

#[test]
fn what_is_stored_while_another_empties_the_cache_is_not_allowed() {
    let cache = cache::of(8).expect("vCPU 8 has a cache");
    for _ in 0..5000 {
        cache.revalidate();
        cache.empty();
        cache.allow(PAGE, Part::Read);
        assert!(!cache.allows(PAGE, Part::Read));
        cache.revalidate();
        assert!(!cache.allows(PAGE, Part::Read));
    }
}
