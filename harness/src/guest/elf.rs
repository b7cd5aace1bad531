//! ELF images, as QEMU's `-kernel` takes them: first as a multiboot kernel, then by a PVH entry note.

use super::kind::{Kind, NoGuest};
use super::little::u32_at;
use super::symbols::Symbols;
use goblin::elf::Elf;
use goblin::elf::header::{EM_386, EM_X86_64, ET_EXEC};
use goblin::elf::program_header::{PT_NOTE, ProgramHeader};

/// The ELF note by which a PVH guest names its 32-bit entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
const ENTRY_NOTE: u32 = 18;
/// An ELF note's numbers: the lengths of its owner and of its content, and its type.
const NOTE_HEADER: usize = 12;
/// A multiboot header's first word, and how far into the file it may begin.
const MULTIBOOT: u32 = 0x1bad_b002;
const MULTIBOOT_WITHIN: usize = 8192;

/// How QEMU boots an ELF, and its symbols.
pub fn recognise(bytes: &[u8]) -> Result<(Kind, Symbols), NoGuest> {
    if !bytes.starts_with(b"\x7fELF") {
        return Err("is not an ELF file".into());
    }
    let elf =
        Elf::parse(bytes).map_err(|error| NoGuest { what: format!("is a damaged ELF: {error}"), remedy: None })?;
    if ![EM_386, EM_X86_64].contains(&elf.header.e_machine) {
        return Err("is an ELF for another machine".into());
    }
    if elf.header.e_type != ET_EXEC {
        return Err("is an ELF of another kind than a static executable".into());
    }
    let kind = match (is_multiboot(bytes), elf.header.e_machine) {
        (true, EM_X86_64) => {
            let remedy = Some(
                "QEMU boots multiboot kernels of 32 bits only: convert it with objcopy -O elf32-i386, or leave the header out",
            );
            return Err(NoGuest { what: "is a multiboot kernel of 64 bits".into(), remedy });
        }
        (true, _) => Kind::Multiboot,
        (false, _) => has_entry_note(&elf, bytes).map(|()| Kind::Elf)?,
    };
    Ok((kind, Symbols::of(&elf)))
}

/// A header is three words whose sum is 0, the first of them known, on a multiple of four bytes.
fn is_multiboot(bytes: &[u8]) -> bool {
    (0..MULTIBOOT_WITHIN).step_by(4).any(|at| {
        let header = u32_at(bytes, at).zip(u32_at(bytes, at + 4)).zip(u32_at(bytes, at + 8));
        header
            .is_some_and(|((magic, flags), sum)| magic == MULTIBOOT && magic.wrapping_add(flags).wrapping_add(sum) == 0)
    })
}

/// The physical address at which QEMU enters the guest.
pub fn entry(bytes: &[u8]) -> Option<u64> {
    let elf = Elf::parse(bytes).ok()?;
    if is_multiboot(bytes) { Some(elf.header.e_entry) } else { entry_of_note(&elf, bytes).map(u64::from) }
}

fn entry_of_note(elf: &Elf<'_>, bytes: &[u8]) -> Option<u32> {
    let notes = elf.program_headers.iter().filter(|segment| segment.p_type == PT_NOTE);
    notes.filter_map(|segment| found_by_qemu(segment, bytes)).next()
}

fn has_entry_note(elf: &Elf<'_>, bytes: &[u8]) -> Result<(), NoGuest> {
    if entry_of_note(elf, bytes).is_some() {
        return Ok(());
    }
    let notes = elf.iter_note_headers(bytes).into_iter().flatten();
    let notes = notes.chain(elf.iter_note_sections(bytes, None).into_iter().flatten());
    let is_entry =
        |note: goblin::elf::note::Note<'_>| note.n_type == ENTRY_NOTE && note.name.trim_end_matches('\0') == "Xen";
    if notes.flatten().any(is_entry) {
        let remedy = Some(
            "QEMU reads the notes of a segment by that segment's alignment, and misses one that stands behind a note of another: put the Xen note first or into a PT_NOTE segment of its own, or discard .note.gnu.property",
        );
        return Err(NoGuest { what: "has a PVH entry note that QEMU does not find".into(), remedy });
    }
    Err("has no PVH entry note".into())
}

/// QEMU looks for a note of this type, and pads owner and content to the segment's alignment, not to the note's own. What it says.
fn found_by_qemu(segment: &ProgramHeader, bytes: &[u8]) -> Option<u32> {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let (start, size) = (number(segment.p_offset), number(segment.p_filesz));
    let notes = start.checked_add(size).and_then(|end| bytes.get(start..end))?;
    let align = number(segment.p_align).max(1);
    let padded = |length: u32| (length as usize).checked_next_multiple_of(align);
    let mut at = 0_usize;
    while let Some(kind) = u32_at(notes, at + 8) {
        if kind == ENTRY_NOTE {
            // One without a content is refused by QEMU itself.
            let content =
                u32_at(notes, at).and_then(padded).and_then(|owner| at.checked_add(NOTE_HEADER)?.checked_add(owner));
            return Some(content.and_then(|content| u32_at(notes, content)).unwrap_or_default());
        }
        let lengths = u32_at(notes, at).and_then(padded).zip(u32_at(notes, at + 4).and_then(padded));
        let next =
            lengths.and_then(|(owner, content)| at.checked_add(NOTE_HEADER)?.checked_add(owner)?.checked_add(content));
        match next {
            Some(next) if next < notes.len() => at = next,
            _ => return None,
        }
    }
    None
}
