//! An instruction that is let through alone, as a response to a violation asks with `EMULATE`: once, and whatever the rights say.
//!
//! Xen has its emulator do the instruction; here the vCPU does it itself while no other runs. The grant is of one instruction, and is spent by
//! that instruction alone ([`crate::Input::Emulated`]): one that was kept from running has not been done, and asks again. A vCPU that asks
//! something else first, in a handler maybe, has lost it, and its instruction makes its event anew.

use crate::event::Flags;
use crate::number::Gfn;
use crate::registers::WORDS;
use crate::rights::Rights;
use bincode::{Decode, Encode};

/// Before the data of reads stands how long they are.
const LENGTH: usize = 4;
/// The longest code that a response can hold.
const CODE: usize = 16;

/// An instruction that may run once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Emulation {
    /// Its linear address.
    pub rip: u64,
    /// The frame whose rights forbade it.
    pub gfn: Gfn,
    /// What it wanted there.
    pub rights: Rights,
    /// What it writes is put back (`EMULATE_NOWRITE`).
    pub keeps_memory: bool,
    /// What it reads instead of what memory holds, with zeros behind it (`SET_EMUL_READ_DATA`).
    pub reads: Option<Vec<u8>>,
    /// The bytes that it consists of instead of those that memory holds (`SET_EMUL_INSN_DATA`).
    pub code: Option<[u8; CODE]>,
    /// No answer asked for it: its vCPU's view allows what it does, and that of another vCPU does not. What its own view forbids it may not do.
    pub by_view: bool,
}

impl Emulation {
    /// Whether it is done in the place of what a CPU event told of: no right forbade it.
    pub(crate) fn is_instead_of_event(&self) -> bool {
        self.rights.is_empty() && !self.by_view
    }

    /// Whether the instruction does something else than it would by itself.
    #[must_use]
    pub fn is_other(&self) -> bool {
        self.keeps_memory || self.reads.is_some() || self.code.is_some()
    }

    /// What a view lets pass.
    pub(crate) fn by_view((rip, gfn, rights): (u64, Gfn, Rights)) -> Emulation {
        Emulation { rip, gfn, rights, keeps_memory: false, reads: None, code: None, by_view: true }
    }

    /// What a response asks for, whose data these are. Of the flags that change what the instruction does the first counts alone, in the order of
    /// `hvm_vm_event_do_resume`: its data to read, no writes, its code.
    pub(crate) fn new((rip, gfn, rights): (u64, Gfn, Rights), flags: Flags, data: &[u64; WORDS]) -> Emulation {
        let mut emulation = Emulation { by_view: false, ..Emulation::by_view((rip, gfn, rights)) };
        let data: Vec<u8> = data.iter().flat_map(|word| word.to_le_bytes()).collect();
        if flags.contains(Flags::SET_EMUL_READ_DATA) {
            let (length, content) = data.split_at(LENGTH);
            let length = length.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            emulation.reads = Some(content[..length.min(content.len())].to_vec());
        } else if flags.contains(Flags::EMULATE_NOWRITE) {
            emulation.keeps_memory = true;
        } else if flags.contains(Flags::SET_EMUL_INSN_DATA) {
            emulation.code = data.first_chunk().copied();
        }
        emulation
    }
}
