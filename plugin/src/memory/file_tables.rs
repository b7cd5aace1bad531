//! Page tables read through the memory file.

use crate::insn::walk::Tables;
use crate::memory::mapping::Memory;
use mem_event::Gpa;

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
