//! Times and numbers as a user writes them for a simulation.

use crate::trace::condition::nanoseconds;

/// A time with its unit, or nothing at all; an hour at most.
#[must_use]
pub fn time(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    nanoseconds(&text.replace('µ', "u")).filter(|time| *time <= 3_600_000_000_000)
}

/// A whole number; `k` and `M` are thousands and millions.
#[must_use]
pub fn count(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['k', 'M']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        _ => return None,
    };
    if !digits.bytes().all(|letter| letter.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
