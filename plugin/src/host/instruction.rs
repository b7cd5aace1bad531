//! The instruction that a stopped vCPU stands in, read where the guest's tables lead.

use crate::host::domain_host::Host;
use crate::insn::decode::{Decoded, InstructionReader};
use crate::insn::nested::AddressSpace;
use crate::insn::recipe::Recipe;
use crate::insn::registers::Registers;
use crate::insn::special::Special;
use crate::insn::subject::Subject;
use crate::insn::walk::{Addressed, Judged};
use crate::memory::file_tables::FileTables;
use crate::qemu::view::View;
use std::cell::RefCell;

/// The longest instruction's bytes.
const LONGEST: usize = 15;

thread_local! {
    static READER: RefCell<InstructionReader> = RefCell::new(InstructionReader::default());
}

/// Whether a touch in the midst of the instruction may be its own, or a device's on its behalf.
pub fn explains(recipe: &Recipe) -> bool {
    !recipe.operands.is_empty() || recipe.special.is_port_io() || matches!(recipe.special, Special::ControlBlock(_))
}

/// What the instruction at this offset of the page that runs touches; `None` where it cannot be read, or touches nothing that can be
/// foreseen. All instructions of a block begin in one page.
pub fn read(host: &Host, view: &View, space: AddressSpace, page_offset: u16) -> Option<Recipe> {
    let gla = view.instruction_pointer() & !0xfff | u64::from(page_offset);
    let mut buffer = [0; LONGEST];
    let length = bytes(host, view, space, gla, &mut buffer)?;
    let code = view.code_size()?;
    match READER.with_borrow_mut(|reader| reader.read(&buffer[..length], gla, code)) {
        Decoded::Touches(recipe) => Some(recipe).filter(explains),
        Decoded::Nothing | Decoded::Unforeseen(_) => None,
    }
}

/// Whether the instruction there makes the processor look into its descriptor tables or its task state, or cannot be read.
pub fn uses_tables(host: &Host, view: &View, space: AddressSpace, page_offset: u16) -> bool {
    let gla = view.instruction_pointer() & !0xfff | u64::from(page_offset);
    let mut buffer = [0; LONGEST];
    let length = bytes(host, view, space, gla, &mut buffer);
    let subject = length.zip(view.code_size()).map(|(length, code)| Subject::new(None, &buffer[..length], code));
    subject.is_none_or(|subject| subject.uses_tables())
}

/// Whether the instruction at this linear address is known to hold interrupts off until the one after it is over.
pub fn holds_interrupts_off(host: &Host, view: &View, space: AddressSpace, gla: u64) -> bool {
    let mut buffer = [0; LONGEST];
    let length = bytes(host, view, space, gla, &mut buffer);
    let subject = length.zip(view.code_size()).map(|(length, code)| Subject::new(None, &buffer[..length], code));
    subject.is_some_and(|subject| subject.holds_interrupts_off())
}

/// Its bytes, as far as they can be read; how many those are.
fn bytes(host: &Host, view: &View, space: AddressSpace, gla: u64, buffer: &mut [u8; LONGEST]) -> Option<usize> {
    let on_first = LONGEST.min(0x1000 - (gla & 0xfff) as usize);
    let (first, second) = buffer.split_at_mut(on_first);
    let read = |gla: u64, bytes: &mut [u8]| {
        let tables = FileTables(&host.memory);
        let tables = Addressed(&tables, view.physical_addresses());
        let gpa = space.translate(&tables, gla, Judged::NOT).ok()?;
        // Code goes on running while its frame is paged out, and zeros are not what runs.
        host.memory.read(gpa.gfn(), gpa.offset(), bytes).ok().filter(|()| host.memory.is_there(gpa.gfn()))
    };
    read(gla, first)?;
    let has_second = !second.is_empty() && read(gla.wrapping_add(on_first as u64), second).is_some();
    Some(if has_second { LONGEST } else { on_first })
}
