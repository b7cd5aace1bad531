//! A processor's registers together with its memory: some instructions read there what else they touch.

use crate::host::nested::address_space;
use crate::insn::registers::Registers;
use crate::insn::walk::{Addressed, Judged};
use crate::memory::file_tables::FileTables;
use crate::memory::mapping::Memory;
use crate::qemu::view::View;

/// A processor. What is read of memory is read through the memory file, which stops no thread.
#[derive(Clone, Copy, Debug)]
pub struct Processor<'a> {
    /// Its registers.
    pub view: &'a View,
    /// The machine's memory.
    pub memory: &'a Memory,
}

impl Processor<'_> {
    fn read(&self, gla: u64, bytes: &mut [u8]) -> Option<()> {
        let tables = FileTables(self.memory);
        let tables = Addressed(&tables, self.view.physical_addresses());
        let space = address_space(self.view.paging_mode(), self.view)?;
        let gpa = space.translate(&tables, gla, Judged::NOT).ok()?;
        self.memory.read(gpa.gfn(), gpa.offset(), bytes).ok()
    }
}

impl Registers for Processor<'_> {
    fn general(&self, number: u8) -> u64 {
        self.view.general(number)
    }

    fn segment_base(&self, number: u8) -> u64 {
        self.view.segment_base(number)
    }

    fn instruction_pointer(&self) -> u64 {
        self.view.instruction_pointer()
    }

    fn stack_mask(&self) -> u64 {
        self.view.stack_mask()
    }

    fn vector(&self, number: u8) -> Option<[u64; 4]> {
        self.view.vector(number)
    }

    fn direction(&self) -> i64 {
        self.view.direction()
    }

    fn privilege(&self) -> u8 {
        self.view.privilege()
    }

    fn alignment_check(&self) -> bool {
        self.view.alignment_check()
    }

    fn enabled_state(&self) -> u64 {
        self.view.enabled_state()
    }

    fn state_in_use(&self) -> u64 {
        self.view.state_in_use()
    }

    fn bound_directory(&self) -> Option<u64> {
        self.view.bound_directory()
    }

    fn quad(&self, gla: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let on_first = (0x1000 - (gla & 0xfff)).min(8) as usize;
        let (first, second) = bytes.split_at_mut(on_first);
        self.read(gla, first)?;
        if !second.is_empty() {
            self.read(gla.wrapping_add(first.len() as u64), second)?;
        }
        Some(u64::from_le_bytes(bytes))
    }
}
