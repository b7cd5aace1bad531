//! How each layout writes a request or a response into a slot. A slot is handled as 64-bit words, little endian in memory.
//!
//! | file | layout |
//! |---|---|
//! | [`mem_event`] | what both 40-byte layouts share: bytes 8 to 39 |
//! | [`flags16`] | the seed's (2011): type and flags of 16 bits each |
//! | [`flags32`] | Xen 4.2 to 4.4: flags of 32 bits, the ring says the type |
//! | [`vm_event`] | `vm_event` version 7 (Xen 4.15 on): 400 bytes |
//! | `malformed` | what no layout knows |
//!
//! Reading never fails for a response: what is not understood is kept as far as [`Response`] can, and the engine checks the
//! rest. Reading a request gives [`Malformed`] where the engine on the other side speaks another layout.

pub mod flags16;
pub mod flags32;
mod malformed;
pub mod mem_event;
pub mod vm_event;

pub use malformed::Malformed;

use crate::control::{Layout, Ring};
use crate::event::{Request, Response};
use crate::number::PAGE_SIZE;
use crate::page::HEADER;

impl Layout {
    /// Bytes in a slot.
    #[must_use]
    pub const fn slot_bytes(self) -> usize {
        match self {
            Layout::Flags16 | Layout::Flags32 => 8 * mem_event::WORDS,
            Layout::VmEvent7 => 8 * vm_event::WORDS,
        }
    }

    /// Slots in a page: the largest power of two that fits behind the header.
    #[must_use]
    pub const fn max_slots(self) -> u32 {
        let fit = (PAGE_SIZE - HEADER) / self.slot_bytes();
        1 << fit.ilog2()
    }
}

/// The bytes of a request.
#[must_use]
pub fn request_bytes(layout: Layout, ring: Ring, request: &Request) -> Vec<u8> {
    match layout {
        Layout::Flags16 => bytes(&flags16::request(ring, request)),
        Layout::Flags32 => bytes(&flags32::request(request)),
        Layout::VmEvent7 => bytes(&vm_event::request(request, None)),
    }
}

/// The bytes of a response.
#[must_use]
pub fn response_bytes(layout: Layout, ring: Ring, response: &Response) -> Vec<u8> {
    match layout {
        Layout::Flags16 => bytes(&flags16::response(ring, response)),
        Layout::Flags32 => bytes(&flags32::response(response)),
        Layout::VmEvent7 => bytes(&vm_event::response(ring, response)),
    }
}

/// A response from its bytes; missing bytes read as zero, further ones are ignored.
#[must_use]
pub fn read_response(layout: Layout, ring: Ring, slot: &[u8]) -> Response {
    match layout {
        Layout::Flags16 => flags16::read_response(&words(slot)),
        Layout::Flags32 => flags32::read_response(ring, &words(slot)),
        Layout::VmEvent7 => vm_event::read_response(&words(slot)),
    }
}

/// A request from its bytes; missing bytes read as zero, further ones are ignored.
///
/// # Errors
/// [`Malformed`] names the field that this layout does not know.
pub fn read_request(layout: Layout, ring: Ring, slot: &[u8]) -> Result<Request, Malformed> {
    match layout {
        Layout::Flags16 => flags16::read_request(&words(slot)),
        Layout::Flags32 => flags32::read_request(ring, &words(slot)),
        Layout::VmEvent7 => vm_event::read_request(&words(slot)),
    }
}

fn bytes<const N: usize>(words: &[u64; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_le_bytes(whole);
    }
    words
}
