//! Page tables read through the memory file.

use crate::insn::walk::Tables;
use crate::memory::mapping::Memory;
use mem_event::Gpa;
use std::cell::RefCell;

/// Page tables read through the memory file, for threads that must not stop on QEMU's mapping: the service thread, which would
/// stop itself, and a translation, which holds QEMU's locks.
#[derive(Clone, Copy, Debug)]
pub struct FileTables<'a>(pub &'a Memory);

impl Tables for FileTables<'_> {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..usize::from(size))?;
        self.0.read(address.gfn(), address.offset(), part).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

/// The same for all questions about one touch: no entry is read twice.
#[derive(Debug)]
pub struct KeptTables<'a> {
    tables: FileTables<'a>,
    read: RefCell<Vec<(Gpa, u8, Option<u64>)>>,
}

impl<'a> KeptTables<'a> {
    /// Nothing is read yet.
    pub fn new(memory: &'a Memory) -> KeptTables<'a> {
        KeptTables { tables: FileTables(memory), read: RefCell::default() }
    }
}

impl Tables for KeptTables<'_> {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let mut read = self.read.borrow_mut();
        if let Some((.., entry)) = read.iter().find(|(at, of, _)| (*at, *of) == (address, size)) {
            return *entry;
        }
        let entry = self.tables.entry(address, size);
        read.push((address, size, entry));
        entry
    }
}
