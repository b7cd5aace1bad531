//! Where in guest memory the operands of an instruction lie, frame by frame.

use crate::host::domain_host::Host;
use crate::host::processor::Processor;
use crate::insn::nested::AddressSpace;
use crate::insn::recipe::{Recipe, Touch};
use crate::insn::registers::Registers;
use crate::insn::walk::{Addressed, Judged};
use crate::memory::file_tables::FileTables;
use crate::qemu::view::View;
use mem_event::{Access, AccessSource, Gfn, Gla, Rights};

/// As much of an operand as lies in one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The frame.
    pub gfn: Gfn,
    /// Where in it.
    pub offset: u16,
    /// How many bytes.
    pub size: u16,
    /// The linear address.
    pub gla: u64,
    /// How many bytes of the operand come before.
    pub before: u16,
    /// What the instruction wants there.
    pub rights: Rights,
}

impl Part {
    /// The access, by the instruction at this address.
    pub fn access(&self, rip: u64) -> Access {
        let Part { gfn, offset, gla, rights, .. } = *self;
        Access { gfn, offset, gla: Some(Gla(gla)), rights, source: AccessSource::Instruction, rip }
    }
}

/// The parts of what an instruction touches in its next step, in the order of its operands: those in RAM to which the guest's tables lead.
pub fn of(host: &Host, view: &View, space: AddressSpace, recipe: &Recipe) -> Vec<Part> {
    let processor = Processor { view, memory: &host.memory };
    let touches = (0..recipe.operands.len()).map(|number| recipe.touch(&processor, number, 0));
    touches.flat_map(|touch| split(recipe, touch)).filter_map(|part| placed(host, view, space, part)).collect()
}

/// An operand by pages; the frames are not known yet.
fn split(recipe: &Recipe, touch: Touch) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = touch.size.checked_sub(done).filter(|left| *left > 0)?;
        let gla = recipe.linear(touch.gla.wrapping_add(u64::from(done)));
        let offset = (gla & 0xfff) as u16;
        let size = left.min(0x1000 - offset);
        let part = Part { gfn: Gfn(0), offset, size, gla, before: done, rights: touch.rights };
        done += size;
        Some(part)
    })
}

fn placed(host: &Host, view: &View, space: AddressSpace, part: Part) -> Option<Part> {
    let tables = FileTables(&host.memory);
    let tables = Addressed(&tables, view.physical_addresses());
    let gpa = space.translate(&tables, part.gla, Judged::NOT).ok()?;
    host.memory.offset(gpa.gfn()).map(|_| Part { gfn: gpa.gfn(), ..part })
}

/// The general registers and the instruction pointer: what an instruction changes at least one of, if it runs.
pub fn progress(view: &View) -> [u64; 17] {
    std::array::from_fn(|at| match u8::try_from(at) {
        Ok(number) if at < 16 => view.general(number),
        _ => view.instruction_pointer(),
    })
}
