//! The kernel's own description of its types (BTF), as far as it is asked where a member of a structure lies.
//!
//! ```text
//! header  u16 0xeb9f, u8 version, u8 flags, u32 its length, then u32 offset and u32 length of the types, and of the texts, behind it
//! type    u32 name, u32 info (how many members: bits 0 to 15; kind: bits 24 to 28; bit 31: sizes of bit fields), u32 size or type; then what
//!         its kind has
//! member  u32 name, u32 type, u32 offset in bits (24 of them where info has bit 31)
//! ```

use crate::guest::little::{u16_at, u32_at};

const MAGIC: u16 = 0xeb9f;
const TYPE: usize = 12;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Structures within structures without names; deeper none is.
const DEPTH: usize = 8;

/// A description.
#[derive(Clone, Debug)]
pub struct Btf<'a> {
    texts: &'a [u8],
    /// Each type's bytes, from number 1 on.
    types: Vec<&'a [u8]>,
}

impl<'a> Btf<'a> {
    /// The description in these bytes.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Btf<'a>> {
        if u16_at(bytes, 0)? != MAGIC {
            return None;
        }
        let behind = u32_at(bytes, 4)? as usize;
        let part = |at: usize| {
            let start = behind.checked_add(u32_at(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(u32_at(bytes, at + 4)? as usize)?)
        };
        let (mut rest, texts) = (part(8)?, part(16)?);
        let mut types = Vec::new();
        while !rest.is_empty() {
            let length = TYPE + further(u32_at(rest, 4)?)?;
            let (one, others) = rest.split_at_checked(length)?;
            types.push(one);
            rest = others;
        }
        Some(Btf { texts, types })
    }

    /// How many bytes into a structure a member lies, also one of a structure without a name in it.
    #[must_use]
    pub fn offset(&self, structure: &str, member: &str) -> Option<u64> {
        let is_it =
            |one: &&&[u8]| u32_at(one, 4).is_some_and(|info| kind(info) == STRUCT) && self.is_called(one, 0, structure);
        self.types.iter().filter(is_it).find_map(|one| self.member(one, member, DEPTH))
    }

    fn member(&self, one: &[u8], wanted: &str, depth: usize) -> Option<u64> {
        let info = u32_at(one, 4)?;
        let mask = if info >> 31 == 1 { 0xff_ffff } else { u32::MAX };
        one[TYPE..].chunks_exact(12).find_map(|member| {
            let offset = u64::from(u32_at(member, 8)? & mask) / 8;
            if self.is_called(member, 0, wanted) {
                return Some(offset);
            }
            let inner = self.types.get((u32_at(member, 4)? as usize).checked_sub(1)?)?;
            let is_nameless = self.is_called(member, 0, "") && [STRUCT, UNION].contains(&kind(u32_at(inner, 4)?));
            let within = (is_nameless && depth > 0).then(|| self.member(inner, wanted, depth - 1))??;
            Some(offset + within)
        })
    }

    /// Whether the text that is named there is this.
    fn is_called(&self, bytes: &[u8], at: usize, name: &str) -> bool {
        let text = u32_at(bytes, at).and_then(|text| self.texts.get(text as usize..));
        text.and_then(|text| text.strip_prefix(name.as_bytes())).is_some_and(|rest| rest.first() == Some(&0))
    }
}

fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// How many bytes a type has behind its three words.
fn further(info: u32) -> Option<usize> {
    let members = (info & 0xffff) as usize;
    Some(match kind(info) {
        // A number, a variable, a tag of a declaration.
        1 | 14 | 17 => 4,
        // An array.
        3 => 12,
        // Structures, unions, sections of data, enumerations of 64 bits.
        STRUCT | UNION | 15 | 19 => 12 * members,
        // Enumerations, functions' parameters.
        6 | 13 => 8 * members,
        // Pointers, declarations ahead, other names, qualifiers, functions, floating point, tags of a type.
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::Btf;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// `int`; a structure without a name that holds `tgid` at 4; `task`, which holds `flags` at 0 and that structure at 8.
    fn description() -> Vec<u8> {
        let texts = b"\0int\0task\0flags\0tgid\0";
        let types = words(&[
            1,
            1 << 24,
            4,
            32, //
            0,
            4 << 24 | 1,
            8,
            16,
            1,
            32, //
            5,
            4 << 24 | 2,
            16,
            10,
            1,
            0,
            0,
            2,
            64,
        ]);
        let length = u32::try_from(types.len()).unwrap();
        let header = [&[0x9f, 0xeb, 1, 0][..], &words(&[24, 0, length, length, u32::try_from(texts.len()).unwrap()])];
        [&header.concat()[..], &types, texts].concat()
    }

    #[test]
    fn a_member_is_found_also_in_a_structure_without_a_name() {
        let bytes = description();
        let btf = Btf::read(&bytes).unwrap();
        assert_eq!(btf.offset("task", "flags"), Some(0));
        assert_eq!(btf.offset("task", "tgid"), Some(12));
        assert_eq!((btf.offset("task", "comm"), btf.offset("int", "flags")), (None, None));
    }

    #[test]
    fn a_cut_description_is_none() {
        let bytes = description();
        assert!((0..bytes.len()).all(|length| Btf::read(&bytes[..length]).is_none()));
    }
}
