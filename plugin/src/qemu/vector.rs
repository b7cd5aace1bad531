//! The vector registers in QEMU's CPU state: sixteen of 64 bytes each, one after the other.
//!
//! Where they begin differs between versions of QEMU, so it is found: the one offset in the state's first part at which the lower
//! halves of all sixteen hold what the API says. Each use by an instruction's check compares them again. Where nothing was compared yet,
//! QEMU's table of what it migrates says where they are. Where they cannot be found, or differ, gathers and masked moves are left to the
//! host's MMU.

use super::declared::append_register;
use super::fields::{self, Field};
use super::register::{VALUE, g_byte_array_new, g_byte_array_set_size, vector_handles};
use super::view::View;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes from one register to the next.
const STRIDE: usize = 64;
const COUNT: usize = 16;
/// Where the registers may begin, and what is read beyond, lies within the state of every QEMU.
const SEARCHED: std::ops::Range<usize> = 512..3072;

const UNKNOWN: usize = 0;
const REFUTED: usize = usize::MAX;
static OFFSET: AtomicUsize = AtomicUsize::new(UNKNOWN);

impl View {
    /// Looks for the vector registers where they are not found yet, else compares them. Only in the vCPU's own thread.
    pub fn prove_vectors(&self) {
        let offset = OFFSET.load(Ordering::Acquire);
        if offset == REFUTED || self.is_by_api() {
            return;
        }
        let Some(lower) = lower_halves() else { return };
        if offset != UNKNOWN {
            if !self.holds(offset, &lower) && OFFSET.swap(REFUTED, Ordering::AcqRel) != REFUTED {
                eprintln!("mem-event: the vector registers are not where they were; the host's MMU sees gathers alone");
            }
            return;
        }
        let mut offsets = SEARCHED.step_by(16).filter(|offset| self.holds(*offset, &lower));
        // As long as they are all zero, any stretch of zeros fits.
        if let (Some(offset), None) = (offsets.next(), offsets.next()) {
            OFFSET.store(offset, Ordering::Release);
        }
    }

    fn holds(&self, offset: usize, lower: &[[u64; 2]; COUNT]) -> bool {
        let at = |number: usize, half: usize| self.u64_at(offset + number * STRIDE + half * 8);
        lower.iter().enumerate().all(|(number, halves)| [at(number, 0), at(number, 1)] == *halves)
    }

    /// The 32 bytes of a vector register.
    pub(super) fn vector_in_place(&self, number: u8) -> Option<[u64; 4]> {
        match OFFSET.load(Ordering::Acquire) {
            REFUTED => None,
            // Where nothing is called before instructions, nothing could be compared.
            UNKNOWN => Some(fields::place(Field::Vectors)?.0),
            offset => Some(offset),
        }
        .map(|offset| {
            let begin = offset + usize::from(number & 15) * STRIDE;
            std::array::from_fn(|quad| self.u64_at(begin + quad * 8))
        })
    }
}

/// What the API says of XMM0 to XMM15.
fn lower_halves() -> Option<[[u64; 2]; COUNT]> {
    let handles = vector_handles()?;
    let mut lower = [[0; 2]; COUNT];
    for (halves, handle) in lower.iter_mut().zip(handles) {
        if handle.is_null() {
            return None;
        }
        *halves = VALUE.with_borrow_mut(|array| {
            // SAFETY: the array is this thread's own; QEMU appends the register's bytes to it, `len` says how many.
            let bytes = unsafe {
                let array = *array.get_or_insert_with(|| g_byte_array_new());
                g_byte_array_set_size(array, 0);
                append_register(handle, array);
                std::slice::from_raw_parts((*array).data, (*array).len as usize)
            };
            let quad = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
            Some([quad(0)?, quad(8)?])
        })?;
    }
    Some(lower)
}
