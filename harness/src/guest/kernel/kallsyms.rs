//! The kernel's own table of symbols, as its build writes it and /proc/kallsyms shows it. Nothing points to it from outside, so it is known by
//! what it is.
//!
//! ```text
//! token table   256 texts with their NULs: a byte of a name stands for a text; those of digits and letters stand for themselves
//! token index   u16 where each text begins
//! names         for each symbol its length (one byte, or two with bit 7 of the first) and so many bytes; the first letter is its kind
//! markers       u32 where every 256th name begins
//! number        u32 how many symbols there are, before their names
//! offsets       u32 a symbol, and the address that they count from
//! ```
//! Up to Linux 6.3 offsets and their base stand before the number, later behind the token index. Where each processor's own data is linked at 0,
//! an offset that is not negative is an address, and one that is counts down from the base less one. In Linux 7 an offset counts from where it
//! stands itself.

use super::flat::{Flat, IMAGE};
use super::names::{Name, Names};
use crate::guest::little::{u16_at, u32_at, u64_at};

/// Tokens of the digits, as they stand in the table.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
/// Fewer or more symbols no kernel has.
const FEWEST: usize = 1000;
const MOST: usize = 4_000_000;

/// The texts that names are made of, and where they stand.
struct Tokens<'a> {
    texts: Vec<&'a [u8]>,
    /// Where the table begins, and where its index ends.
    begin: usize,
    end: usize,
}

/// Where the names stand.
struct Table {
    number_at: usize,
    names_at: usize,
    count: usize,
}

/// The symbols of a kernel with this memory.
///
/// # Errors
/// There is no such table; the rest of a sentence that begins with the file's name.
pub fn read(flat: &Flat) -> Result<Names, String> {
    let none = || "holds no table of symbols (CONFIG_KALLSYMS), or one of a form that is not known here".to_owned();
    let bytes = &flat.bytes;
    let (tokens, table) =
        tokens(bytes).find_map(|tokens| table(bytes, tokens.begin).map(|table| (tokens, table))).ok_or_else(none)?;
    let addresses = addresses(flat, &tokens, &table).ok_or_else(none)?;
    let names = names(bytes, &tokens, &table).ok_or_else(none)?;
    let list = addresses.into_iter().zip(names).map(|(address, (kind, name))| Name { address, kind, name });
    Ok(Names::new(list.collect()))
}

/// Where the digits' tokens stand, the table before and behind them, and its index behind that.
fn tokens(bytes: &[u8]) -> impl Iterator<Item = Tokens<'_>> {
    let mut from = 0;
    let digits = std::iter::from_fn(move || {
        let at = from + memchr::memmem::find(bytes.get(from..)?, DIGITS)?;
        from = at + 1;
        Some(at)
    });
    digits.filter_map(|at| tokens_around(bytes, at))
}

fn tokens_around(bytes: &[u8], digits: usize) -> Option<Tokens<'_>> {
    // A text before another ends with a NUL of its own.
    let mut begin = digits;
    for _ in 0..b'0' {
        begin = bytes[..begin.checked_sub(1)?].iter().rposition(|byte| *byte == 0)? + 1;
    }
    let mut texts = Vec::with_capacity(256);
    let (mut starts, mut at) = (Vec::with_capacity(256), begin);
    for _ in 0..256 {
        let length = bytes.get(at..)?.iter().position(|byte| *byte == 0)?;
        starts.push(at - begin);
        texts.push(&bytes[at..at + length]);
        at += length + 1;
    }
    let has_index =
        |index: &usize| (0..256).all(|token| u16_at(bytes, index + 2 * token).map(usize::from) == Some(starts[token]));
    // The first text's own beginning is known by the index alone: bytes before it may be zeros that pad.
    let index = (at..at + 16).find(has_index)?;
    Some(Tokens { texts, begin, end: index + 512 })
}

/// The names before these tokens: a number, and so many names whose every 256th is where the markers behind them say.
fn table(bytes: &[u8], tokens: usize) -> Option<Table> {
    (0..tokens).step_by(4).rev().skip(1).find_map(|number_at| {
        let number = u32_at(bytes, number_at)? as usize;
        if !(FEWEST..MOST).contains(&number) {
            return None;
        }
        [8, 4].into_iter().find_map(|gap| is_table(bytes, number_at, number_at + gap, number, tokens))
    })
}

fn is_table(bytes: &[u8], number_at: usize, names_at: usize, count: usize, tokens: usize) -> Option<Table> {
    let mut at = names_at;
    let mut starts = Vec::with_capacity(count / 256 + 1);
    for number in 0..count {
        if number % 256 == 0 {
            starts.push(u32::try_from(at - names_at).ok()?);
        }
        let (length, head) = length(bytes, at)?;
        at += head + length;
        if length == 0 || at >= tokens {
            return None;
        }
    }
    let markers = at.next_multiple_of(4);
    let are =
        |from: usize| starts.iter().zip(0..).all(|(start, marker)| u32_at(bytes, from + 4 * marker) == Some(*start));
    [markers, at.next_multiple_of(8)].into_iter().any(are).then_some(Table { number_at, names_at, count })
}

/// A name's length, and the bytes that say it.
fn length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.get(at)?);
    if first & 0x80 == 0 { Some((first, 1)) } else { Some((first & 0x7f | usize::from(*bytes.get(at + 1)?) << 7, 2)) }
}

fn names(bytes: &[u8], tokens: &Tokens<'_>, table: &Table) -> Option<Vec<(char, Box<str>)>> {
    let mut at = table.names_at;
    let mut names = Vec::with_capacity(table.count);
    let mut text = Vec::new();
    for _ in 0..table.count {
        let (length, head) = length(bytes, at)?;
        let packed = bytes.get(at + head..at + head + length)?;
        text.clear();
        packed.iter().for_each(|token| text.extend(tokens.texts[usize::from(*token)]));
        let (kind, name) = text.split_first()?;
        names.push((char::from(*kind), String::from_utf8_lossy(name).into()));
        at += head + length;
    }
    Some(names)
}

/// The addresses, in either order of the tables; they are known by their own order and by being the kernel's.
fn addresses(flat: &Flat, tokens: &Tokens<'_>, table: &Table) -> Option<Vec<u64>> {
    let bytes = &flat.bytes;
    let size = 4 * table.count;
    let offsets =
        |at: usize| (0..table.count).map(|number| u32_at(bytes, at + 4 * number)).collect::<Option<Vec<u32>>>();
    let before = table.number_at.checked_sub(8).and_then(|base_at| {
        let offsets_at = base_at.checked_sub(size.next_multiple_of(8))?;
        Some((offsets_at, base_at))
    });
    let behind = tokens.end.next_multiple_of(8);
    let behind = [(behind, (behind + size).next_multiple_of(8)), (tokens.end, tokens.end + size)];
    let mut with_base = before.into_iter().chain(behind).filter_map(|(offsets_at, base_at)| {
        let base = u64_at(bytes, base_at).filter(|base| *base >= IMAGE)?;
        of_offsets(&offsets(offsets_at)?, base)
    });
    with_base.next().or_else(|| {
        [tokens.end, tokens.end.next_multiple_of(8)]
            .into_iter()
            .find_map(|at| of_places(&offsets(at)?, flat.address(at)))
    })
}

/// Each counts from where it stands.
fn of_places(offsets: &[u32], first: u64) -> Option<Vec<u64>> {
    let from_its_place =
        |(at, offset): (u64, &u32)| (first + 4 * at).wrapping_add_signed(i64::from(offset.cast_signed()));
    let addresses: Vec<u64> = (0..).zip(offsets).map(from_its_place).collect();
    (addresses.is_sorted() && addresses.first() >= Some(&IMAGE)).then_some(addresses)
}

fn of_offsets(offsets: &[u32], base: u64) -> Option<Vec<u64>> {
    let has_absolute = offsets.iter().any(|offset| offset.cast_signed() < 0);
    let one = |offset: &u32| match offset.cast_signed() {
        down if has_absolute && down < 0 => base.wrapping_sub(1).wrapping_add(u64::from(down.unsigned_abs())),
        _ if has_absolute => u64::from(*offset),
        _ => base.wrapping_add(u64::from(*offset)),
    };
    let addresses: Vec<u64> = offsets.iter().map(one).collect();
    addresses.is_sorted().then_some(addresses)
}
