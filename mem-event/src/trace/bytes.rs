//! Numbers in as few bytes as they need.
//!
//! A number has seven bits a byte, the lowest first; a byte below 128 is the last. A difference is a number: twice its amount, and
//! one less for one below zero, modulo 2^64. Words are told by what changed in them since others: a bit a word, then of each that changed a bit a
//! byte, and the new bytes xor the old.

/// What cannot be read, and why.
pub(super) type Found<T> = Result<T, String>;

#[cold]
pub(super) fn wrong<T>(what: &str) -> Found<T> {
    Err(format!("a block that does not decode ({what})"))
}

/// Words in a group, which has a byte that says which of them changed.
const GROUP: usize = 8;

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "seven bits are wanted")]
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[inline]
pub(super) fn difference(out: &mut Vec<u8>, new: u64, old: u64) {
    let by = new.wrapping_sub(old);
    number(out, if by >> 63 == 0 { by << 1 } else { !(by << 1) });
}

/// Bytes with their number before them.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What changed in words, of which there are at most 64; more than [`GROUP`] of them have a byte before that says in which groups some did.
pub(super) fn words<const N: usize>(out: &mut Vec<u8>, new: &[u64; N], old: &[u64; N]) {
    let groups = N.div_ceil(GROUP);
    let all = out.len();
    if groups > 1 {
        out.push(0);
    }
    for group in 0..groups {
        let first = group * GROUP;
        let last = N.min(first + GROUP);
        if groups > 1 && new[first..last] == old[first..last] {
            continue;
        }
        if groups > 1 {
            out[all] |= 1 << group;
        }
        let which = out.len();
        out.push(0);
        for at in first..last {
            let changed = new[at] ^ old[at];
            if changed != 0 {
                out[which] |= 1 << (at - first);
                word(out, changed);
            }
        }
    }
}

fn word(out: &mut Vec<u8>, changed: u64) {
    let which = out.len();
    out.push(0);
    for (at, byte) in changed.to_le_bytes().into_iter().enumerate() {
        if byte != 0 {
            out[which] |= 1 << at;
            out.push(byte);
        }
    }
}

/// Bytes that are read.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    rest: &'a [u8],
    size: usize,
}

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes { rest: bytes, size: bytes.len() }
    }

    /// How many have been read.
    pub fn used(&self) -> usize {
        self.size - self.rest.len()
    }

    /// Those that have not.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next so many.
    #[inline]
    pub fn take(&mut self, count: usize) -> Found<&'a [u8]> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else { return wrong("it ends within a step") };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub fn byte(&mut self) -> Found<u8> {
        let Some((byte, rest)) = self.rest.split_first() else { return wrong("it ends within a step") };
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    pub fn number(&mut self) -> Found<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 63 {
                return wrong("a number above 2^64");
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A number of 32 bits.
    #[inline]
    pub fn small(&mut self) -> Found<u32> {
        u32::try_from(self.number()?).or_else(|_| wrong("a number above 2^32"))
    }

    #[inline]
    pub fn difference(&mut self, old: u64) -> Found<u64> {
        let coded = self.number()?;
        let by = if coded & 1 == 0 { coded >> 1 } else { !(coded >> 1) };
        Ok(old.wrapping_add(by))
    }

    pub fn text(&mut self) -> Found<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Changes words as they were changed when they were written.
    pub fn words<const N: usize>(&mut self, words: &mut [u64; N]) -> Found<()> {
        let groups = N.div_ceil(GROUP);
        let which = if groups > 1 { self.byte()? } else { 1 };
        for group in (0..groups).filter(|group| which & 1 << group != 0) {
            let changed = self.byte()?;
            for at in (0..GROUP).filter(|at| changed & 1 << at != 0) {
                let Some(word) = words.get_mut(group * GROUP + at) else { return wrong("a word that is not there") };
                *word ^= self.word()?;
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Found<u64> {
        let which = self.byte()?;
        let mut changed = [0; 8];
        for (at, byte) in changed.iter_mut().enumerate() {
            if which & 1 << at != 0 {
                *byte = self.byte()?;
            }
        }
        Ok(u64::from_le_bytes(changed))
    }
}
