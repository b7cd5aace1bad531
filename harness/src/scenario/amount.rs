//! Sizes and times as people write them.

use crate::refusal::Refusal;
use std::time::Duration;

/// A size of memory, as [`bytes`] reads it.
///
/// # Errors
/// What is no size, zero, above one tebibyte, or no multiple of a page.
pub fn size(text: &str) -> Result<u64, Refusal> {
    let wrong = |why: &str| Refusal::usage(format!("size {text:?} {why}"), "write 512M, 2G or 65536K");
    match bytes(text)? {
        bytes if bytes % 4096 != 0 => Err(wrong("is no multiple of 4096 bytes")),
        bytes if bytes > 1 << 40 => Err(wrong("is above one tebibyte")),
        bytes => Ok(bytes),
    }
}

/// A number of bytes: a number with `K`, `M` or `G` (powers of 1024; `KiB`, `MiB`, `GiB` are the same), or bytes.
///
/// # Errors
/// What is no size, zero, or too large for 64 bits.
pub fn bytes(text: &str) -> Result<u64, Refusal> {
    let wrong = |why: &str| Refusal::usage(format!("size {text:?} {why}"), "write 512M, 2G or 65536K");
    let short = text.strip_suffix("iB").filter(|short| short.ends_with(['K', 'M', 'G'])).unwrap_or(text);
    let digits = short.trim_end_matches(['K', 'M', 'G', 'k', 'm', 'g']);
    let shift = match &short[digits.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err(wrong("has an unknown unit")),
    };
    let number: u64 = digits.parse().map_err(|_| wrong("is no number with a unit"))?;
    let bytes =
        number.checked_shl(shift).filter(|bytes| bytes >> shift == number).ok_or_else(|| wrong("is too large"))?;
    if bytes == 0 { Err(wrong("is nothing")) } else { Ok(bytes) }
}

/// A time: a number with `ms`, `s` or `m`; seconds without.
///
/// # Errors
/// What is no time, or zero.
pub fn time(text: &str) -> Result<Duration, Refusal> {
    let wrong = || Refusal::usage(format!("time {text:?} is none"), "write 500ms, 60s or 5m");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        _ => return Err(wrong()),
    };
    let total = number.checked_mul(milliseconds).filter(|total| (1..=86_400_000).contains(total)).ok_or_else(wrong)?;
    Ok(Duration::from_millis(total))
}

/// A number in decimal, or in hexadecimal after `0x`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        None if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}

/// A size as people read it: `128.0 MiB`.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

#[cfg(test)]
mod tests {
    use super::{bytes, mebibytes, number, size, time};
    use std::time::Duration;

    #[test]
    fn sizes_have_units_of_1024() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("8192"), Ok(8192));
        assert_eq!((size("64KiB"), size("128MiB"), size("2GiB")), (Ok(64 << 10), Ok(128 << 20), Ok(2 << 30)));
        assert_eq!(mebibytes((128 << 20) + (1 << 19)), "128.5 MiB");
    }

    #[test]
    fn a_number_of_bytes_is_any_but_none() {
        assert_eq!((bytes("4097"), bytes("1K"), bytes("2048G")), (Ok(4097), Ok(1024), Ok(2 << 40)));
        assert!(bytes("0").is_err() && bytes("99999999999G").is_err());
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in ["", "M", "0", "12X", "4097", "-1M", "99999999999G", "1MM", "4096iB", "1miB", "iB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("7"), Ok(Duration::from_secs(7)));
        for text in ["", "s", "0", "1h", "-2s", "9999999999999m"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        assert_eq!(number("0x10"), Some(16));
        assert_eq!(number("10"), Some(10));
        assert_eq!(number("0x"), None);
        assert_eq!(number("ten"), None);
    }
}
