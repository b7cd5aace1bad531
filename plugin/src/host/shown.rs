//! Frames that show others' memory in a view: what a vCPU finds there that goes by it.
//!
//! Such an access is done alone. For as long the bytes that it meets are the other frame's, and what it wrote is that one's afterwards.

use crate::host::domain_host::Host;
use crate::host::dropping::Dropped;
use crate::host::instruction::{self, LONGEST};
use crate::host::instrumentation;
use crate::host::nested::address_space;
use crate::memory::file_tables::FileTables;
use crate::qemu::view::View;
use mem_event::{CpuEventKind, Gfn, PAGE_SIZE, Rights, VcpuId};
use std::io;

/// The instruction of one byte that raises the trap of an event's kind: `int3` or `int1`.
pub fn byte_of(kind: CpuEventKind) -> u8 {
    if kind == CpuEventKind::Debug { 0xf1 } else { 0xcc }
}

/// The instruction that a vCPU is to execute by its view.
#[derive(Clone, Copy, Debug)]
pub struct ShownCode {
    bytes: [u8; LONGEST],
    length: usize,
    is_same: bool,
}

impl ShownCode {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Whether memory has the same bytes there.
    pub fn is_same(&self) -> bool {
        self.is_same
    }

    /// The kind of event that tells of it, where it is a breakpoint or `int1`.
    pub fn trap(&self) -> Option<CpuEventKind> {
        [CpuEventKind::Int3, CpuEventKind::Debug].into_iter().find(|kind| self.bytes() == [byte_of(*kind)])
    }
}

impl Host {
    /// Copies bytes of a frame, of RAM or beyond.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> io::Result<()> {
        match self.memory.offset(gfn) {
            Some(_) => self.memory.read(gfn, offset, bytes),
            None => self.beyond.read(gfn, offset, bytes),
        }
    }

    /// Overwrites bytes of a frame, of RAM or beyond; what was there is not what runs any more.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn write(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> io::Result<()> {
        if self.memory.offset(gfn).is_none() {
            return self.beyond.write(gfn, offset, bytes);
        }
        let written = self.memory.write(gfn, offset, bytes);
        // Whatever of it was written.
        self.bytes_changed(gfn, offset, bytes.len());
        written
    }

    /// Whether an access of this vCPU is forbidden by no view: that it must be done alone may be.
    pub fn is_allowed_by_view(&self, vcpu: VcpuId, gfn: Gfn, rights: Rights) -> bool {
        match self.rights.shown_to(vcpu, gfn) {
            Some((_, shown)) => shown.contains(rights),
            None => self.rights.allowed_to(vcpu, gfn).contains(rights),
        }
    }

    /// Blocks of this frame are checked before each of their instructions from now on, and the others are dropped.
    pub fn checks_each_of(&self, gfn: Gfn) {
        if let Some(host) = self.memory.host_address(gfn)
            && !self.each.add(gfn)
            && self.drop_blocks_of(host, PAGE_SIZE as u64) == Dropped::All
        {
            instrumentation::renew();
        }
    }

    /// Whether a block of this frame that is translated now is checked before each of its instructions.
    pub fn checks_each(&self, gfn: Gfn) -> bool {
        self.each.has(gfn) || self.rights.is_shown_otherwise(gfn)
    }

    /// Whether a vCPU may execute the instruction at this linear address, which begins in this frame: its view shows another one's memory there, but
    /// the same bytes.
    pub fn shows_the_same(&self, vcpu: VcpuId, gfn: Gfn, (gla, view): (u64, &View)) -> bool {
        let may = self.rights.shown_to(vcpu, gfn).is_some_and(|(_, rights)| rights.contains(Rights::X));
        may && self.shown_code(vcpu, gla, view).is_some_and(|code| code.is_same)
    }

    /// What a vCPU finds at this linear address to execute; `None` where that cannot be read.
    pub fn shown_code(&self, vcpu: VcpuId, gla: u64, view: &View) -> Option<ShownCode> {
        let space = address_space(view.paging_mode(), view)?;
        let mut plain = [0; LONGEST];
        let readable = instruction::bytes(self, &FileTables(&self.memory), view, space, gla, &mut plain)?;
        let mut bytes = plain;
        for (gfn, offset, part) in instruction::frames(self, view, space, gla, &plain[..readable]) {
            // The frames follow each other, and the parts lie one behind the other.
            let at = part.as_ptr().addr() - plain.as_ptr().addr();
            if let Some((other, _)) = self.rights.shown_to(vcpu, gfn) {
                self.read(other, offset, &mut bytes[at..at + part.len()]).ok()?;
            }
        }
        let length = instruction::one(&bytes[..readable], gla, view.code_size()?)?.len();
        Some(ShownCode { bytes, length, is_same: bytes[..length] == plain[..length] })
    }
}
