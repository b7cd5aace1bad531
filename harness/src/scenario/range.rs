//! Ranges of guest memory as people write them.
//!
//! ```text
//! 0x100..0x110         frames, the end not included; 0x100 alone is one frame
//! gpa:0x1000-0x1fff    guest-physical addresses, both included; gpa:0x1000 alone is its frame
//! WATCHED              a symbol of the guest: all frames that it lies in
//! WATCHED+0x1000       the one frame at that distance from a symbol
//! ram                  all of the guest's memory whose accesses can be trapped, where rights are set (a watch)
//! kernel:do_exit       a symbol of the guest's kernel, gla:0x1000 a linear address: see `guest::linear`
//! ```

use super::amount::number;
use crate::guest::linear;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use mem_event::{AccessType, Gfn, Gla, Gpa, Rights};
use std::fmt;

/// Some frames in a row; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The first.
    pub first: Gfn,
    /// How many.
    pub count: u64,
}

/// All of the guest's memory, which may be several ranges.
pub const RAM: &str = "ram";

const FORMS: &str = "write frames (0x100..0x110), addresses (gpa:0x1000-0x1fff) or a symbol (NAME, NAME+0x1000)";

/// The largest frame number with a 52-bit physical address.
const LAST_FRAME: u64 = (1 << 40) - 1;

impl Frames {
    /// Reads a range; symbols are looked up in the guest.
    ///
    /// # Errors
    /// What is no range, with the forms that are.
    pub fn parse(text: &str, symbols: &Symbols) -> Result<Frames, Refusal> {
        let bare = |why: &str| Refusal::usage(format!("range {text:?} {why}"), FORMS);
        let value = |part: &str| number(part).ok_or_else(|| bare(&format!("has {part:?} where a number stands")));
        if linear::is_one(text) {
            return Frames::of_linear(text, symbols);
        }
        let (first, last) = if let Some(addresses) = text.strip_prefix("gpa:") {
            match addresses.split_once('-') {
                Some((first, last)) => {
                    (Gpa(value(first)?).gfn().0, check_order(value(first)?, value(last)?, &bare)? >> 12)
                }
                None => (value(addresses)? >> 12, value(addresses)? >> 12),
            }
        } else if let Some((first, end)) = text.split_once("..") {
            let (first, end) = (value(first)?, value(end)?);
            (first, check_order(first.saturating_add(1), end, &bare)? - 1)
        } else if text.starts_with(|letter: char| letter.is_ascii_digit()) {
            (value(text)?, value(text)?)
        } else if text.is_empty() {
            return Err(bare("is empty"));
        } else if text == RAM {
            return Err(bare("is all of the guest's memory, and fits where rights are set alone"));
        } else {
            return Frames::of_symbol(text, symbols);
        };
        if last > LAST_FRAME { Err(bare("is beyond 52 bits of address")) } else { Ok(Frames::from_to(first, last)) }
    }

    /// The frames that the pages of a place lead to, which must follow each other as the pages do.
    fn of_linear(text: &str, symbols: &Symbols) -> Result<Frames, Refusal> {
        let linear = symbols.linear();
        let unknown = |page: &Gla| {
            Refusal::usage(format!("{text:?}: {page} leads nowhere now"), "take pages that the guest has mapped")
        };
        let pages = linear.pages(text)?;
        let frames = pages.iter().map(|page| Ok(linear.physical(*page).ok_or_else(|| unknown(page))?.gfn().0));
        let frames: Vec<u64> = frames.collect::<Result<_, Refusal>>()?;
        let first = frames.first().copied().unwrap_or_default();
        if frames.iter().zip(first..).any(|(frame, due)| *frame != due) {
            let what = format!("{text:?} lies in frames that do not follow each other");
            return Err(Refusal::usage(what, "name its pages one by one"));
        }
        Ok(Frames { first: Gfn(first), count: frames.len() as u64 })
    }

    fn of_symbol(text: &str, symbols: &Symbols) -> Result<Frames, Refusal> {
        if let Some((name, distance)) = text.rsplit_once('+') {
            let distance = number(distance).ok_or_else(|| {
                Refusal::usage(format!("range {text:?} has {distance:?} where a number stands"), FORMS)
            })?;
            let at = symbols.find(name)?.gpa.0.saturating_add(distance) >> 12;
            return Ok(Frames::from_to(at, at));
        }
        let symbol = symbols.find(text)?;
        Ok(Frames::from_to(symbol.gpa.gfn().0, symbol.gpa.0.saturating_add(symbol.size.max(1) - 1) >> 12))
    }

    fn from_to(first: u64, last: u64) -> Frames {
        Frames { first: Gfn(first), count: last - first + 1 }
    }

    /// Each frame, in order.
    pub fn iter(self) -> impl Iterator<Item = Gfn> + Clone {
        (self.first.0..self.first.0 + self.count).map(Gfn)
    }

    /// Whether the frame is one of them.
    #[must_use]
    pub fn contains(self, gfn: Gfn) -> bool {
        gfn.0.checked_sub(self.first.0).is_some_and(|distance| distance < self.count)
    }
}

/// An address: `gpa:0x1000`, `NAME`, `NAME+0x10`.
///
/// # Errors
/// What is no address, with the forms that are.
pub fn address(text: &str, symbols: &Symbols) -> Result<Gpa, Refusal> {
    const FORMS: &str = "write an address (gpa:0x1000) or a symbol (NAME, NAME+0x10)";
    if linear::is_one(text) {
        let (first, _) = symbols.linear().range(text)?;
        let unmapped =
            || Refusal::usage(format!("{text:?} leads nowhere now"), "take an address that the guest has mapped");
        return symbols.linear().physical(Gla(first)).ok_or_else(unmapped);
    }
    let part = |part: &str| {
        number(part)
            .ok_or_else(|| Refusal::usage(format!("address {text:?} has {part:?} where a number stands"), FORMS))
    };
    let gpa = match (text.strip_prefix("gpa:"), text.rsplit_once('+')) {
        (Some(digits), _) => part(digits)?,
        (None, Some((name, distance))) => symbols.find(name)?.gpa.0.saturating_add(part(distance)?),
        (None, None) if text.is_empty() || text.starts_with(|letter: char| letter.is_ascii_digit()) => {
            return Err(Refusal::usage(format!("{text:?} is no address"), FORMS));
        }
        (None, None) => symbols.find(text)?.gpa.0,
    };
    if gpa >> 12 > LAST_FRAME {
        Err(Refusal::usage(format!("address {text:?} is beyond 52 bits"), FORMS))
    } else {
        Ok(Gpa(gpa))
    }
}

fn check_order(first: u64, last: u64, bare: &dyn Fn(&str) -> Refusal) -> Result<u64, Refusal> {
    if last < first { Err(bare("ends before it begins")) } else { Ok(last) }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{:#x}", self.first, self.first.0 + self.count)
    }
}

/// The rights that are left where some accesses are watched: `rw` watches reads and writes and leaves execution.
/// `rx2rw` and `n2rwx` are Xen's types of these names.
///
/// # Errors
/// What names no access.
pub fn left_by_watching(text: &str) -> Result<AccessType, Refusal> {
    if let Some(special) =
        [AccessType::Rx2rw, AccessType::N2rwx].into_iter().find(|special| special.to_string() == text)
    {
        return Ok(special);
    }
    let mut watched = Rights::NONE;
    for letter in text.chars() {
        watched = watched.union(match letter {
            'r' => Rights::R,
            'w' => Rights::W,
            'x' => Rights::X,
            _ => {
                return Err(Refusal::usage(
                    format!("no access {letter:?} in {text:?}"),
                    "write some of r, w, x; or rx2rw, n2rwx",
                ));
            }
        });
    }
    match AccessType::from_number(Rights::RWX.without(watched).bits()) {
        Some(left) if !watched.is_empty() => Ok(left),
        _ => Err(Refusal::usage(
            "a watch names no access",
            "write RANGE=r, RANGE=w, RANGE=x or several of these letters",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{Frames, left_by_watching};
    use crate::guest::symbols::Symbols;
    use mem_event::{AccessType, Gfn};

    fn parse(text: &str) -> Result<Frames, String> {
        let symbols = Symbols::from_list(&[("PAGES", 0x20_0000, 0x3000), ("odd", 0x30_0ff0, 0x20)]);
        Frames::parse(text, &symbols).map_err(|refusal| refusal.to_string())
    }

    fn frames(first: u64, count: u64) -> Result<Frames, String> {
        Ok(Frames { first: Gfn(first), count })
    }

    #[test]
    fn a_range_is_frames_addresses_or_a_symbol() {
        assert_eq!(parse("0x100..0x110"), frames(0x100, 0x10));
        assert_eq!(parse("256"), frames(256, 1));
        assert_eq!(parse("gpa:0x1000-0x2fff"), frames(1, 2));
        assert_eq!(parse("gpa:0x1fff"), frames(1, 1));
        assert_eq!(parse("PAGES"), frames(0x200, 3));
        assert_eq!(parse("PAGES+0x1010"), frames(0x201, 1));
        assert_eq!(parse("odd"), frames(0x300, 2));
    }

    #[test]
    fn an_address_is_a_number_or_a_symbol() {
        let symbols = Symbols::from_list(&[("PAGES", 0x20_0000, 0x3000)]);
        let parse = |text| super::address(text, &symbols).map(|gpa| gpa.0).map_err(|refusal| refusal.to_string());
        assert_eq!(parse("gpa:0x1234"), Ok(0x1234));
        assert_eq!(parse("PAGES"), Ok(0x20_0000));
        assert_eq!(parse("PAGES+0x1010"), Ok(0x20_1010));
        for text in ["", "0x1234", "gpa:", "gpa:x", "PAGES+", "PAGES+x", "gpa:0xffffffffffffffff"] {
            assert!(parse(text).expect_err(text).contains("write an address"), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_forms() {
        for text in ["", "..", "1..1", "2..1", "gpa:", "gpa:2-1", "0x", "1..x", "PAGES+", "gpa:0xffffffffffffffff"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("write frames"), "{text}: {error}");
        }
        assert!(parse("PAGE").unwrap_err().contains("PAGES"));
    }

    #[test]
    fn a_watch_leaves_the_other_rights() {
        assert_eq!(left_by_watching("rwx"), Ok(AccessType::N));
        assert_eq!(left_by_watching("w"), Ok(AccessType::Rx));
        assert_eq!(left_by_watching("n2rwx"), Ok(AccessType::N2rwx));
        assert!(left_by_watching("q").is_err());
        assert!(left_by_watching("").is_err());
    }
}
