//! Answers on record, for a replay.

use crate::control::Ring;
use crate::effect::{Effect, Effects};
use crate::taken;
use crate::wire::flags32;

/// Puts an answer on record. Most are about violations: such a one is made of the slot's words where it is to stand.
#[inline(always)]
pub(crate) fn answer(effects: &mut Effects, ring: Ring, slot: u32, words: &flags32::Slot) {
    taken::push_slot(&mut effects.taken, ring, words);
    match flags32::read_violation(ring, words) {
        Some(response) => effects.push(|| Effect::Answered { ring, slot, response }),
        None => other_answer(effects, ring, slot, *words),
    }
}

#[inline(never)]
fn other_answer(effects: &mut Effects, ring: Ring, slot: u32, words: flags32::Slot) {
    effects.push(|| Effect::Answered { ring, slot, response: flags32::read_response(ring, &words) });
}
