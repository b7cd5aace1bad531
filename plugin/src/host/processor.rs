//! A processor's registers together with its memory: some instructions read there what else they touch.

use crate::host::nested::address_space;
use crate::insn::registers::Registers;
use crate::insn::walk::{Addressed, Judged};
use crate::memory::file_tables::FileTables;
use crate::memory::mapping::Memory;
use crate::qemu::view::View;
use std::ops::RangeInclusive;

/// A processor. What is read of memory is read through the memory file, which stops no thread.
#[derive(Clone, Copy, Debug)]
pub struct Processor<'a> {
    /// Its registers.
    pub view: &'a View,
    /// The machine's memory.
    pub memory: &'a Memory,
}

impl Processor<'_> {
    /// The bytes at a linear address, of two pages at most.
    pub fn bytes<const N: usize>(&self, gla: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let on_first = usize::try_from(0x1000 - (gla & 0xfff)).ok()?;
        let (first, second) = bytes.split_at_mut(on_first.min(N));
        self.read(gla, first)?;
        if !second.is_empty() {
            self.read(gla.wrapping_add(first.len() as u64), second)?;
        }
        Some(bytes)
    }

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

    fn is_protected(&self) -> bool {
        self.view.is_protected()
    }

    fn is_long(&self) -> bool {
        self.view.is_long()
    }

    fn descriptor_table(&self, local: bool) -> Option<RangeInclusive<u64>> {
        self.view.descriptor_table(local)
    }

    fn task_state(&self) -> Option<(u64, bool)> {
        self.view.task_state()
    }

    fn quad(&self, gla: u64) -> Option<u64> {
        self.bytes(gla).map(u64::from_le_bytes)
    }
}
