//! A kernel's memory as one piece by linear address; what is not there reads as zeros.

use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;

/// Where the kernel is mapped, with or without KASLR: the last two gibibytes.
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// The largest piece: the room that the kernel has for its image, and more than any image has.
pub const LARGEST: usize = 1 << 30;

/// The memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flat {
    /// The address of its first byte.
    pub base: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Flat {
    /// The memory that an ELF describes, without the part that is linked for each processor at 0.
    ///
    /// # Errors
    /// It is no kernel of x86-64.
    pub fn of_elf(elf: &Elf<'_>, bytes: &[u8]) -> Result<Flat, String> {
        let none = || "is an ELF of another kind than a Linux kernel for x86-64".to_owned();
        let segments =
            || elf.program_headers.iter().filter(|segment| segment.p_type == PT_LOAD && segment.p_vaddr >= IMAGE);
        let base = segments().map(|segment| segment.p_vaddr).min().ok_or_else(none)?;
        let end = segments().filter_map(|segment| segment.p_vaddr.checked_add(segment.p_memsz)).max();
        let length = end.and_then(|end| usize::try_from(end.checked_sub(base)?).ok());
        let length = length.filter(|length| *length <= LARGEST).ok_or_else(none)?;
        let mut flat = Flat { base, bytes: vec![0; length] };
        for segment in segments() {
            let content = bytes.get(segment.file_range()).ok_or_else(none)?;
            let at = usize::try_from(segment.p_vaddr - base).map_err(|_| none())?;
            let room = at.checked_add(content.len()).and_then(|end| flat.bytes.get_mut(at..end)).ok_or_else(none)?;
            room.copy_from_slice(content);
        }
        Ok(flat)
    }

    /// The bytes between two addresses.
    #[must_use]
    pub fn between(&self, from: u64, to: u64) -> Option<&[u8]> {
        let at = |address: u64| usize::try_from(address.checked_sub(self.base)?).ok();
        self.bytes.get(at(from)?..at(to)?)
    }

    /// So many bytes at an address.
    #[must_use]
    pub fn at(&self, address: u64, length: usize) -> Option<&[u8]> {
        self.between(address, address.checked_add(length as u64)?)
    }

    /// The address of a byte.
    #[must_use]
    pub fn address(&self, at: usize) -> u64 {
        self.base.wrapping_add(at as u64)
    }
}
