//! What a step took from ring pages, byte for byte, so that a replay can put it there again.
//!
//! [`crate::Effects::taken`] is a list of records in the order in which things were taken:
//!
//! ```text
//!  0  u8 ring (1 paging, 2 access, 3 sharing)
//!  1  u8 kind (0 a response's slot, 1 the producer index of a ring found broken)
//!  2  u16 length, little endian
//!  4  that many bytes: the slot as it was copied, or u32 rsp_prod
//! ```

use crate::control::Ring;

const SLOT: u8 = 0;
const BROKEN: u8 = 1;
/// Bytes before a record's content.
pub const HEAD: usize = 4;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken<'a> {
    /// A response's slot.
    Slot(Ring, &'a [u8]),
    /// The producer index that could not be.
    Broken(Ring, u32),
}

/// Appends a slot, given as words: each by itself, as they may be in registers.
#[inline(always)]
pub(crate) fn push_slot<const N: usize>(list: &mut Vec<u8>, ring: Ring, words: &[u64; N]) {
    #[allow(clippy::cast_possible_truncation, reason = "a slot has at most 400 bytes")]
    let length = (8 * N) as u16;
    list.reserve(HEAD + 8 * N);
    let [low, high] = length.to_le_bytes();
    list.extend_from_slice(&[ring as u8, SLOT, low, high]);
    for word in words {
        list.extend_from_slice(&word.to_le_bytes());
    }
}

/// Appends the producer index of a broken ring.
pub(crate) fn push_broken(list: &mut Vec<u8>, ring: Ring, rsp_prod: u32) {
    list.extend_from_slice(&[ring as u8, BROKEN, 4, 0]);
    list.extend_from_slice(&rsp_prod.to_le_bytes());
}

/// The records of a list, up to its end or to what is no record.
pub fn records(list: &[u8]) -> impl Iterator<Item = Taken<'_>> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first_chunk::<HEAD>()?;
        let ring = Ring::from_number(head[0])?;
        let (content, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes([head[2], head[3]])))?;
        rest = tail;
        match head[1] {
            SLOT => Some(Taken::Slot(ring, content)),
            BROKEN => Some(Taken::Broken(ring, u32::from_le_bytes(content.try_into().ok()?))),
            _ => None,
        }
    })
}
