//! Where things are in QEMU's CPU state, by version.
//!
//! The state begins with the general registers: sixteen of them up to QEMU 11.0, thirty-two from 11.1 on, for APX. What follows has kept
//! its order from 9.2 to 11.1, so that everything behind them is a fixed number of bytes further on. Which of the candidates it is,
//! QEMU's table of what it migrates says, else the first comparison of the view with the API; the proof of the view holds for both.

use crate::insn::quick::RegisterOffsets;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes by which what is behind the general registers is further on, in the order in which they are tried.
const CANDIDATES: [usize; 2] = [0, 128];
const UNKNOWN: usize = usize::MAX;
static CHOSEN: AtomicUsize = AtomicUsize::new(UNKNOWN);

/// A field behind the general registers: bytes from the state's start where there are sixteen of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Behind(usize);

pub(super) const EIP: Behind = Behind(128);
pub(super) const EFLAGS: Behind = Behind(136);
/// What arithmetic flags are computed from: result, two operands, kind.
pub(super) const FLAG_OPERANDS: [Behind; 3] = [Behind(144), Behind(152), Behind(160)];
pub(super) const FLAG_KIND: Behind = Behind(168);
pub(super) const DIRECTION: Behind = Behind(172);
pub(super) const HFLAGS: Behind = Behind(176);
const SEGMENTS: usize = 184;
const SEGMENT_SIZE: usize = 24;
/// LDT, TR, GDT and IDT follow the six segments.
pub(super) const SYSTEM_TABLES: usize = 6;
const CONTROL: usize = SEGMENTS + (SYSTEM_TABLES + 4) * SEGMENT_SIZE;

/// Of a segment: its selector is first.
pub(super) const SEGMENT_BASE: usize = 8;
pub(super) const SEGMENT_LIMIT: usize = 16;
pub(super) const SEGMENT_FLAGS: usize = 20;

/// A segment, or a system table by [`SYSTEM_TABLES`].
pub(super) const fn segment(number: usize) -> Behind {
    Behind(SEGMENTS + number * SEGMENT_SIZE)
}

/// A control register.
pub(super) const fn control(number: usize) -> Behind {
    Behind(CONTROL + number * 8)
}

impl Behind {
    /// A place within the field.
    pub(super) const fn plus(self, bytes: usize) -> Behind {
        Behind(self.0 + bytes)
    }

    /// Bytes from the state's start, in this QEMU.
    #[inline(always)]
    pub(super) fn place(self) -> usize {
        match CHOSEN.load(Ordering::Relaxed) {
            UNKNOWN => self.0,
            further => self.0 + further,
        }
    }

    /// Bytes from the state's start, if it is this candidate.
    pub(super) fn place_in(self, Candidate(further): Candidate) -> usize {
        self.0 + further
    }
}

/// By how much everything behind the general registers may be further on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate(usize);

/// Whether it was found out where things are.
pub fn is_known() -> bool {
    CHOSEN.load(Ordering::Relaxed) != UNKNOWN
}

/// Finds out, where it is not known yet: the first candidate that fits.
pub(super) fn choose(fits: impl Fn(Candidate) -> bool) {
    if !is_known()
        && let Some(further) = CANDIDATES.into_iter().find(|further| fits(Candidate(*further)))
    {
        CHOSEN.store(further, Ordering::Relaxed);
    }
}

/// Whether QEMU means such a state, whose instruction pointer it says to have there: where nothing is known yet, that tells it.
pub(super) fn has_instruction_pointer_at(place: u64) -> bool {
    choose(|candidate| EIP.place_in(candidate) as u64 == place);
    is_known() && EIP.place() as u64 == place
}

/// Where the quick checks find registers.
#[allow(clippy::cast_possible_truncation, reason = "the state's first part is smaller than 64 KiB")]
pub fn register_offsets() -> RegisterOffsets {
    RegisterOffsets {
        general: std::array::from_fn(|number| number as u16 * 8),
        segment_bases: std::array::from_fn(|number| segment(number).plus(SEGMENT_BASE).place() as u16),
        instruction_pointer: EIP.place() as u16,
    }
}
