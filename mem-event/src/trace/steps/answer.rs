//! What the engine answered: the outcome, then the effects in their order.
//!
//! The first byte has the outcome in its lowest two bits and how many effects there are above them, or 63 and the number follows. An effect begins with
//! its tag. What an effect says of a request or response that is in the step already is not told again.

use super::past::Past;
use super::slots::{Slot, slots};
use crate::access::violation_request;
use crate::control::Ring;
use crate::effect::{Effect, Outcome, WaitReason};
use crate::event::{Flags, Request, Response};
use crate::input::Input;
use crate::number::{Gfn, VcpuId};
use crate::packed::Packed;
use crate::trace::bytes::{Bytes, Found, difference, number, words, wrong};
use crate::trace::values;
use crate::wire::{flags16, flags32, vm_event};

const OUTCOME: u8 = 3;
const MANY: usize = 63;

const WHOLE: u8 = 0;
/// The request that the step's access makes.
const VIOLATION: u8 = 1;
const REQUESTED: u8 = 2;
/// What the next slot that was taken says, in one of the layouts.
const ANSWERED32: u8 = 3;
const ANSWERED16: u8 = 4;
const ANSWERED_VM_EVENT: u8 = 5;
/// And the number of the ring.
const NOTIFY: u8 = 5;
const WAKE: u8 = 9;
const MAP: u8 = 10;
const UNMAP: u8 = 11;
const PUNCH: u8 = 12;
const FILL: u8 = 13;
const ZERO: u8 = 14;
const TIGHTEN: u8 = 15;

/// The number of an outcome; [`OUTCOME`] of all those that follow whole.
#[inline]
fn number_of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Proceed => 0,
        Outcome::Wait(WaitReason::Answer(Ring::Access)) => 1,
        Outcome::Wait(WaitReason::Answer(Ring::Paging)) => 2,
        _ => OUTCOME,
    }
}

/// What a step says besides its effects, as far as these follow from it.
struct Known<'a, T> {
    input: &'a Input,
    taken: T,
    /// The frame that an effect is likely to name: that of the input, and of the effect before.
    gfn: u64,
}

impl<'a, T: Iterator<Item = Slot>> Known<'a, T> {
    fn new(input: &'a Input, taken: T) -> Known<'a, T> {
        let gfn = match input {
            Input::Access { access, .. } | Input::Foreign { access } => access.gfn.0,
            _ => 0,
        };
        Known { input, taken, gfn }
    }

    /// The request that the input makes if it is an access which the rights forbid.
    #[inline]
    fn violation(&self) -> Option<Request> {
        let Input::Access { vcpu, access } = self.input else { return None };
        Some(Request { flags: Flags::VCPU_PAUSED, ..violation_request(*vcpu, access) })
    }
}

pub(super) fn write(
    out: &mut Vec<u8>,
    past: &Past,
    (input, taken): (&Input, &[u8]),
    outcome: &Outcome,
    effects: &[Effect],
) -> Found<()> {
    let number_of_outcome = number_of(outcome);
    let count = effects.len().min(MANY);
    #[allow(clippy::cast_possible_truncation, reason = "at most 63")]
    out.push(number_of_outcome | (count as u8) << 2);
    if count == MANY {
        number(out, effects.len() as u64);
    }
    if number_of_outcome == OUTCOME {
        values::append(out, outcome)?;
    }
    let mut known = Known::new(input, slots(taken));
    effects.iter().try_for_each(|effect| write_effect(out, past, &mut known, effect))
}

fn write_effect(
    out: &mut Vec<u8>,
    past: &Past,
    known: &mut Known<'_, impl Iterator<Item = Slot>>,
    effect: &Effect,
) -> Found<()> {
    let tag_of_frame = match effect {
        Effect::Requested { ring, slot, request } => return write_request(out, past, known, (*ring, *slot, request)),
        Effect::Answered { ring, slot, response } => {
            let slot_words = known.taken.next();
            known.gfn = response.subject();
            match slot_words.and_then(|it| tag_of_answer(*ring, &it, response)) {
                Some(tag) => {
                    out.push(tag);
                    number(out, (*slot).into());
                }
                None => return write_whole(out, effect),
            }
            return Ok(());
        }
        Effect::Notify(ring) => {
            out.push(NOTIFY + *ring as u8);
            return Ok(());
        }
        Effect::Wake(vcpu) => {
            out.push(WAKE);
            number(out, vcpu.0.into());
            return Ok(());
        }
        Effect::Map(gfn) => (MAP, gfn),
        Effect::Unmap(gfn) => (UNMAP, gfn),
        Effect::Punch(gfn) => (PUNCH, gfn),
        Effect::Fill(gfn) => (FILL, gfn),
        Effect::Zero(gfn) => (ZERO, gfn),
        Effect::Tighten { first, .. } => (TIGHTEN, first),
        other => return write_whole(out, other),
    };
    let (tag, gfn) = tag_of_frame;
    out.push(tag);
    difference(out, gfn.0, known.gfn);
    known.gfn = gfn.0;
    if let Effect::Tighten { count, .. } = effect {
        number(out, *count);
    }
    Ok(())
}

fn write_whole(out: &mut Vec<u8>, effect: &Effect) -> Found<()> {
    out.push(WHOLE);
    values::append(out, effect)
}

fn write_request(
    out: &mut Vec<u8>,
    past: &Past,
    known: &Known<'_, impl Iterator<Item = Slot>>,
    (ring, slot, request): (Ring, u32, &Request),
) -> Found<()> {
    if ring == Ring::Access && known.violation().as_ref() == Some(request) {
        out.push(VIOLATION);
        number(out, slot.into());
        return Ok(());
    }
    let packed = Packed::new(request);
    if !packed.is_whole() || packed.request() != *request {
        return write_whole(out, &Effect::Requested { ring, slot, request: *request });
    }
    out.extend_from_slice(&[REQUESTED, ring as u8]);
    number(out, slot.into());
    number(out, request.vcpu.0.into());
    words(out, &packed.words(), &past.asked(request.vcpu.0, ring).words());
    Ok(())
}

#[inline]
fn tag_of_answer(on: Ring, slot: &Slot, response: &Response) -> Option<u8> {
    match slot {
        Slot::Small(ring, slot) if *ring == on => {
            if flags32::read_response(on, slot) == *response {
                return Some(ANSWERED32);
            }
            (flags16::read_response(slot) == *response).then_some(ANSWERED16)
        }
        Slot::Large(ring, slot) if *ring == on => {
            (vm_event::read_response(slot) == *response).then_some(ANSWERED_VM_EVENT)
        }
        _ => None,
    }
}

/// Reads [`write`].
pub(super) fn read(
    bytes: &mut Bytes<'_>,
    past: &Past,
    (input, taken): (&Input, &[u8]),
) -> Found<(Outcome, Vec<Effect>)> {
    let head = bytes.byte()?;
    let count = match usize::from(head >> 2) {
        MANY => usize::try_from(bytes.number()?).unwrap_or(usize::MAX),
        count => count,
    };
    let outcome = match head & OUTCOME {
        0 => Outcome::Proceed,
        1 => Outcome::Wait(WaitReason::Answer(Ring::Access)),
        2 => Outcome::Wait(WaitReason::Answer(Ring::Paging)),
        _ => values::read(bytes)?,
    };
    let mut known = Known::new(input, slots(taken));
    // Each effect has a byte at least, so no count is believed that the bytes do not bear out.
    let mut effects = Vec::with_capacity(count.min(bytes.rest().len()).min(MANY));
    for _ in 0..count {
        effects.push(read_effect(bytes, past, &mut known)?);
    }
    Ok((outcome, effects))
}

fn read_effect(bytes: &mut Bytes<'_>, past: &Past, known: &mut Known<'_, impl Iterator<Item = Slot>>) -> Found<Effect> {
    let tag = bytes.byte()?;
    match tag {
        WHOLE => {
            let effect = values::read(bytes)?;
            if let Effect::Answered { response, .. } = &effect {
                known.taken.next();
                known.gfn = response.subject();
            }
            Ok(effect)
        }
        VIOLATION => match known.violation() {
            Some(request) => Ok(Effect::Requested { ring: Ring::Access, slot: bytes.small()?, request }),
            None => wrong("a violation without an access"),
        },
        REQUESTED => read_request(bytes, past),
        ANSWERED32 | ANSWERED16 | ANSWERED_VM_EVENT => {
            let (slot, answered) = (bytes.small()?, known.taken.next());
            let Some((ring, response)) = answered.and_then(|it| answer(tag, it)) else {
                return wrong("an answer that was not taken");
            };
            known.gfn = response.subject();
            Ok(Effect::Answered { ring, slot, response })
        }
        WAKE => Ok(Effect::Wake(VcpuId(bytes.small()?))),
        MAP..=TIGHTEN => {
            let gfn = Gfn(bytes.difference(known.gfn)?);
            known.gfn = gfn.0;
            Ok(match tag {
                MAP => Effect::Map(gfn),
                UNMAP => Effect::Unmap(gfn),
                PUNCH => Effect::Punch(gfn),
                FILL => Effect::Fill(gfn),
                ZERO => Effect::Zero(gfn),
                _ => Effect::Tighten { first: gfn, count: bytes.number()? },
            })
        }
        _ => match Ring::from_number(tag.wrapping_sub(NOTIFY)) {
            Some(ring) => Ok(Effect::Notify(ring)),
            None => wrong("an unknown effect"),
        },
    }
}

fn answer(tag: u8, slot: Slot) -> Option<(Ring, Response)> {
    match (tag, slot) {
        (ANSWERED32, Slot::Small(ring, slot)) => Some((ring, flags32::read_response(ring, &slot))),
        (ANSWERED16, Slot::Small(ring, slot)) => Some((ring, flags16::read_response(&slot))),
        (ANSWERED_VM_EVENT, Slot::Large(ring, slot)) => Some((ring, vm_event::read_response(&slot))),
        _ => None,
    }
}

fn read_request(bytes: &mut Bytes<'_>, past: &Past) -> Found<Effect> {
    let Some(ring) = Ring::from_number(bytes.byte()?) else { return wrong("a request on no ring") };
    let (slot, vcpu) = (bytes.small()?, bytes.small()?);
    let mut packed = past.asked(vcpu, ring).words();
    bytes.words(&mut packed)?;
    let packed = Packed::from_words(packed);
    if !packed.is_whole() {
        return wrong("a request that is none");
    }
    Ok(Effect::Requested { ring, slot, request: packed.request() })
}
