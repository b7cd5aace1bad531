//! What a step took from ring pages.
//!
//! A byte says how many slots; 0 stands before bytes that are no list of slots. A slot has a byte (the ring, and above it the form), then
//! either the vCPU whose last request it echoes, or what changed in its words since the last slot of its ring and size.

use super::past::Past;
use crate::control::Ring;
use crate::event::Request;
use crate::taken::{self, HEAD, Taken, push_slot};
use crate::trace::bytes::{Bytes, Found, number, text, words, wrong};
use crate::wire::{flags16, flags32, mem_event, vm_event};

const SMALL: u8 = 0;
const LARGE: u8 = 1;
const ECHO32: u8 = 2;
const ECHO16: u8 = 3;

const SMALL_BYTES: usize = 8 * mem_event::WORDS;
const LARGE_BYTES: usize = 8 * vm_event::WORDS;

/// A slot as words.
pub(super) enum Slot {
    Small(Ring, mem_event::Slot),
    Large(Ring, Box<vm_event::Slot>),
}

/// The slots of a list of what was taken, up to what is none.
pub(super) fn slots(list: &[u8]) -> impl Iterator<Item = Slot> {
    taken::records(list).map_while(|record| match record {
        Taken::Slot(ring, bytes) if bytes.len() == SMALL_BYTES => Some(Slot::Small(ring, small(bytes))),
        Taken::Slot(ring, bytes) if bytes.len() == LARGE_BYTES => {
            let mut slot = Box::new([0; vm_event::WORDS]);
            let (chunks, _) = bytes.as_chunks::<8>();
            slot.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = u64::from_le_bytes(*chunk));
            Some(Slot::Large(ring, slot))
        }
        _ => None,
    })
}

#[inline]
fn small(bytes: &[u8]) -> mem_event::Slot {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| chunks.get(at).map_or(0, |chunk| u64::from_le_bytes(*chunk)))
}

/// How many slots a list has, where it is a list of slots and nothing else.
fn count(list: &[u8]) -> Option<u8> {
    let (mut count, mut bytes) = (0_u8, 0);
    for slot in taken::records(list) {
        match slot {
            Taken::Slot(_, slot) if [SMALL_BYTES, LARGE_BYTES].contains(&slot.len()) => bytes += HEAD + slot.len(),
            _ => return None,
        }
        count = count.checked_add(1)?;
    }
    (bytes == list.len() && count > 0).then_some(count)
}

pub(super) fn write(out: &mut Vec<u8>, past: &mut Past, list: &[u8]) {
    let Some(count) = count(list) else {
        out.push(0);
        return text(out, list);
    };
    out.push(count);
    for slot in slots(list) {
        match slot {
            Slot::Small(ring, slot) => write_small(out, past, ring, &slot),
            Slot::Large(ring, slot) => {
                out.push(ring as u8 | LARGE << 2);
                words(out, &slot, &past.large[ring.index()]);
                past.large[ring.index()] = *slot;
            }
        }
    }
}

fn write_small(out: &mut Vec<u8>, past: &mut Past, ring: Ring, slot: &mem_event::Slot) {
    // Both layouts have the vCPU at the same place.
    let vcpu = crate::word::high(slot[0]);
    let request = past.request(vcpu, ring);
    let form = request.and_then(|it| [ECHO32, ECHO16].into_iter().find(|form| echo(*form, ring, &it) == *slot));
    out.push(ring as u8 | form.unwrap_or(SMALL) << 2);
    match form {
        Some(_) => number(out, vcpu.into()),
        None => words(out, slot, &past.small[ring.index()]),
    }
    past.small[ring.index()] = *slot;
}

/// The ordinary answer to a request.
#[inline]
fn echo(form: u8, ring: Ring, request: &Request) -> mem_event::Slot {
    let answer = request.answer();
    if form == ECHO16 { flags16::response(ring, &answer) } else { flags32::response(&answer) }
}

/// Reads [`write`] into the list.
pub(super) fn read(bytes: &mut Bytes<'_>, past: &mut Past, list: &mut Vec<u8>) -> Found<()> {
    let count = bytes.byte()?;
    if count == 0 {
        list.extend_from_slice(bytes.text()?);
    }
    for _ in 0..count {
        let head = bytes.byte()?;
        let Some(ring) = Ring::from_number(head & 3) else { return wrong("a slot of no ring") };
        match head >> 2 {
            LARGE => {
                let mut slot = past.large[ring.index()];
                bytes.words(&mut slot)?;
                past.large[ring.index()] = slot;
                push_slot(list, ring, &slot);
            }
            form @ (SMALL | ECHO32 | ECHO16) => {
                let slot = read_small(bytes, past, ring, form)?;
                past.small[ring.index()] = slot;
                push_slot(list, ring, &slot);
            }
            _ => return wrong("a slot of an unknown form"),
        }
    }
    Ok(())
}

fn read_small(bytes: &mut Bytes<'_>, past: &Past, ring: Ring, form: u8) -> Found<mem_event::Slot> {
    if form == SMALL {
        let mut slot = past.small[ring.index()];
        bytes.words(&mut slot)?;
        return Ok(slot);
    }
    match past.request(bytes.small()?, ring) {
        Some(request) => Ok(echo(form, ring, &request)),
        None => wrong("an answer to no request"),
    }
}
