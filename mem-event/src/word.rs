//! Halves of a 64-bit word.

/// The low half of a word.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(crate) fn low(word: u64) -> u32 {
    word as u32
}

/// The high half of a word.
#[inline(always)]
pub(crate) fn high(word: u64) -> u32 {
    low(word >> 32)
}

/// Two halves as one word.
#[inline(always)]
pub(crate) fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
