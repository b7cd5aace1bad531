//! What a processor touches by itself, beside its instructions' operands: the entries of page tables, its descriptor tables and
//! task state, and the stacks that it pushes an interrupt's frame onto.

use crate::host::touch::FrameFault;
use crate::insn::nested::AddressSpace;
use crate::insn::walk::{Addressed, Judged, Tables};
use crate::memory::file_tables::KeptTables;
use crate::qemu::view::View;
use mem_event::Gpa;
use std::cell::Cell;

/// An interrupt pushes at most six words of eight bytes, from the next multiple of 16 down.
const FRAME: u64 = 64;
/// In `View::system_tables`, the last.
const INTERRUPTS: usize = 3;
/// In a 64-bit task state: three stacks by privilege level, a reserved word, seven more that gates name. In a 32-bit one the first
/// is a stack's offset, and of its segment's base it is supposed that it is 0.
const FIRST_STACK: u64 = 4;
const STACKS: u64 = 11;

/// A byte that was touched, and the processor in whose thread.
#[derive(Debug)]
pub struct ImplicitAccess<'a> {
    /// The guest's page tables.
    pub tables: &'a KeptTables<'a>,
    /// How the processor translates addresses.
    pub space: AddressSpace,
    /// Its state.
    pub view: View,
    /// What was touched.
    pub fault: FrameFault,
}

impl ImplicitAccess<'_> {
    /// Whether it is in an entry that the walk of one of these linear addresses reads, or of one of the processor's tables.
    pub fn is_walked(&self, used: impl Iterator<Item = u64>) -> bool {
        let tables = self.view.system_tables().into_iter().flatten().map(|table| *table.start());
        self.is_walked_for(used.chain(tables).chain(self.stacks()))
    }

    /// Whether it is in an entry that the walk of one of these linear addresses reads.
    pub fn is_walked_for(&self, mut addresses: impl Iterator<Item = u64>) -> bool {
        addresses.any(|gla| {
            let watched = Watched { inner: self.tables, fault: self.fault, met: Cell::new(false) };
            let _ = self.translate(&watched, gla);
            watched.met.get()
        })
    }

    /// Whether it is in a descriptor table or the task state. No processor writes to its IDT.
    pub fn is_in_a_table(&self) -> bool {
        let used = if self.fault.write { INTERRUPTS } else { INTERRUPTS + 1 };
        let mut tables = self.view.system_tables().into_iter().take(used).flatten();
        tables.any(|table| self.is_within(*table.start(), table.end().wrapping_sub(*table.start())))
    }

    /// Whether it is where an interrupt's frame goes.
    pub fn is_stack(&self) -> bool {
        self.fault.write && self.stacks().any(|top| self.is_within((top & !0xf).wrapping_sub(FRAME), FRAME - 1))
    }

    /// Whether it is one of the bytes from `first` to `first + last`, of which there are at most some pages.
    fn is_within(&self, first: u64, last: u64) -> bool {
        let into_page = u64::from(self.fault.offset).wrapping_sub(first) & 0xfff;
        (into_page..=last.min(0xffff)).step_by(0x1000).any(|at| {
            let gpa = self.translate(self.tables, first.wrapping_add(at));
            gpa.is_some_and(|gpa| gpa.gfn() == self.fault.gfn)
        })
    }

    /// The tops of the stacks that an interrupt may use.
    fn stacks(&self) -> impl Iterator<Item = u64> {
        let [_, task, _, _] = self.view.system_tables();
        let task = task.map(|task| *task.start()).into_iter();
        let named = task.flat_map(move |task| {
            (0..STACKS).filter_map(move |number| self.word(task.wrapping_add(FIRST_STACK + number * 8)))
        });
        named.filter(|top| *top != 0).chain([self.view.stack()])
    }

    fn translate(&self, tables: &impl Tables, gla: u64) -> Option<Gpa> {
        self.space.translate(&Addressed(tables, self.view.physical_addresses()), gla, Judged::NOT).ok()
    }

    fn word(&self, gla: u64) -> Option<u64> {
        let half = |gla| {
            let gpa = self.translate(self.tables, gla)?;
            self.tables.entry(gpa, 4)
        };
        let (low, high) = (half(gla)?, half(gla.wrapping_add(4))?);
        Some(if self.space.own.is_long() { high << 32 | low } else { low })
    }
}

/// Page tables that notice when the touched entry is read.
struct Watched<'a> {
    inner: &'a KeptTables<'a>,
    fault: FrameFault,
    met: Cell<bool>,
}

impl Tables for Watched<'_> {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let entry = address.offset()..address.offset() + u16::from(size);
        if address.gfn() == self.fault.gfn && entry.contains(&self.fault.offset) {
            self.met.set(true);
        }
        self.inner.entry(address, size)
    }
}
