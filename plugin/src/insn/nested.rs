//! A guest's guest: its linear addresses lead through its own page tables, and what these say leads through the tables that its hypervisor,
//! the guest, gave it with `vmrun` (SVM's nested paging).

use crate::insn::registers::Registers;
use crate::insn::walk::{GuestFault, Judged, PagingMode, PhysicalAddresses, Tables};
use mem_event::{Gpa, Rights};

/// How a linear address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AddressSpace {
    /// By whose tables first.
    pub own: PagingMode,
    /// By whose tables what these say, where paging is nested.
    pub nested: Option<PagingMode>,
}

impl AddressSpace {
    /// The guest-physical address that an access reaches.
    ///
    /// # Errors
    /// The guest's own tables forbid it, or those of its hypervisor.
    pub fn translate(&self, tables: &impl Tables, gla: u64, access: Judged) -> Result<Gpa, GuestFault> {
        let Some(nested) = self.nested else { return self.own.translate(tables, gla, access) };
        let own = self.own.translate(&Through { tables, nested }, gla, access)?;
        nested.translate(tables, own.0, judged(access.rights))
    }
}

/// How nested tables judge an access: every one is a user's.
fn judged(rights: Rights) -> Judged {
    if rights.is_empty() { Judged::NOT } else { Judged { rights, user: true, ..Judged::NOT } }
}

/// Page tables at addresses that nested tables translate.
struct Through<'a, T> {
    tables: &'a T,
    nested: PagingMode,
}

impl<T: Tables> Tables for Through<'_, T> {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let address = self.nested.translate(self.tables, address.0, judged(Rights::R)).ok()?;
        self.tables.entry(address, size)
    }

    fn addresses(&self) -> PhysicalAddresses {
        self.tables.addresses()
    }
}

/// How an instruction uses a control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlBlock {
    /// Bits of RAX that count.
    pub address_mask: u64,
    /// What it does there. A `vmrun` reads; the processor writes there by itself when the guest's guest is left.
    pub rights: Rights,
    /// Whether it enters a guest's guest.
    pub enters: bool,
}

impl ControlBlock {
    /// Where the block is.
    pub fn address(&self, registers: &impl Registers) -> Gpa {
        Gpa(registers.general(0) & self.address_mask)
    }
}
