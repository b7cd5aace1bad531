//! The instruction that a stopped vCPU stands in, read where the guest's tables lead.

use crate::host::domain_host::Host;
use crate::insn::decode::{Decoded, InstructionReader};
use crate::insn::nested::AddressSpace;
use crate::insn::recipe::Recipe;
use crate::insn::registers::{CodeSize, Registers};
use crate::insn::special::Special;
use crate::insn::subject::Subject;
use crate::insn::walk::{Addressed, Judged, Tables};
use crate::memory::file_tables::FileTables;
use crate::qemu::view::View;
use iced_x86::{Decoder, DecoderOptions};
use mem_event::Gfn;
use std::cell::RefCell;

/// The longest instruction's bytes.
pub const LONGEST: usize = 15;

thread_local! {
    static READER: RefCell<InstructionReader> = RefCell::new(InstructionReader::default());
}

/// Whether a touch in the midst of the instruction may be its own, or a device's on its behalf.
pub fn explains(recipe: &Recipe) -> bool {
    !recipe.operands.is_empty() || recipe.special.is_port_io() || matches!(recipe.special, Special::ControlBlock(_))
}

/// What the instruction at this offset of the page that runs touches; `None` where it cannot be read, or touches nothing that can be
/// foreseen. All instructions of a block begin in one page.
pub fn read(host: &Host, tables: &impl Tables, view: &View, space: AddressSpace, page_offset: u16) -> Option<Recipe> {
    let gla = address(view, page_offset);
    let mut buffer = [0; LONGEST];
    let length = bytes(host, tables, view, space, gla, &mut buffer)?;
    let code = view.code_size()?;
    match READER.with_borrow_mut(|reader| reader.read(&buffer[..length], gla, code)) {
        Decoded::Touches(recipe) => Some(recipe).filter(explains),
        Decoded::Nothing | Decoded::Unforeseen(_) => None,
    }
}

/// The instruction at this linear address, as its bytes are; `None` where they cannot be read.
pub fn subject(host: &Host, view: &View, space: AddressSpace, gla: u64) -> Option<Subject> {
    let mut buffer = [0; LONGEST];
    let length = bytes(host, &FileTables(&host.memory), view, space, gla, &mut buffer)?;
    Some(Subject::new(None, &buffer[..length], view.code_size()?))
}

/// Where the page that runs has this offset.
pub fn address(view: &View, page_offset: u16) -> u64 {
    view.instruction_pointer() & !0xfff | u64::from(page_offset)
}

/// The first instruction of some bytes; `None` where they are none.
pub fn one(bytes: &[u8], gla: u64, code: CodeSize) -> Option<&[u8]> {
    let instruction = Decoder::with_ip(code.bits().into(), bytes, gla, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then(|| &bytes[..instruction.len()])
}

/// In which frames the bytes of an instruction at this linear address lie: frame, offset, and as much of them; none where the guest's tables
/// do not lead to all.
pub fn frames<'b>(
    host: &Host,
    view: &View,
    space: AddressSpace,
    gla: u64,
    bytes: &'b [u8],
) -> Vec<(Gfn, u16, &'b [u8])> {
    let (first, second) = bytes.split_at(bytes.len().min(0x1000 - (gla & 0xfff) as usize));
    let tables = FileTables(&host.memory);
    let tables = Addressed(&tables, view.physical_addresses());
    let both = [(gla, first), (gla.wrapping_add(first.len() as u64), second)];
    let found = both.into_iter().filter(|(_, bytes)| !bytes.is_empty()).map(|(gla, bytes)| {
        let gpa = space.translate(&tables, gla, Judged::NOT).ok()?;
        host.memory.offset(gpa.gfn())?;
        Some((gpa.gfn(), gpa.offset(), bytes))
    });
    found.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Its bytes, as far as they can be read; how many those are.
pub fn bytes(
    host: &Host,
    tables: &impl Tables,
    view: &View,
    space: AddressSpace,
    gla: u64,
    buffer: &mut [u8; LONGEST],
) -> Option<usize> {
    let on_first = LONGEST.min(0x1000 - (gla & 0xfff) as usize);
    let (first, second) = buffer.split_at_mut(on_first);
    let tables = Addressed(tables, view.physical_addresses());
    let read = |gla: u64, bytes: &mut [u8]| {
        let gpa = space.translate(&tables, gla, Judged::NOT).ok()?;
        // Code goes on running while its frame is paged out, and zeros are not what runs.
        host.memory.read(gpa.gfn(), gpa.offset(), bytes).ok().filter(|()| host.memory.is_there(gpa.gfn()))
    };
    read(gla, first)?;
    let has_second = !second.is_empty() && read(gla.wrapping_add(on_first as u64), second).is_some();
    Some(if has_second { LONGEST } else { on_first })
}
