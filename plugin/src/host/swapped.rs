//! Bytes of guest memory that are others for one instruction, while no vCPU runs but the one that does it.

use crate::host::domain_host::{Host, report};
use crate::host::parts::Part;
use mem_event::{Emulation, Gfn, Rights};

/// Bytes that come back after the instruction.
#[derive(Clone, Debug)]
struct Kept {
    gfn: Gfn,
    offset: u16,
    bytes: Vec<u8>,
}

/// What memory gets back once the instruction is over.
#[derive(Clone, Debug, Default)]
pub struct Swapped(Vec<Kept>);

impl Swapped {
    /// Before the instruction: what it reads is what the consumer says, and what it writes is to be put back where the consumer wants that.
    ///
    /// Of what it reads it keeps what it does not write: an instruction that computes in memory leaves there what it made of the other
    /// content.
    pub fn data(host: &Host, emulation: &Emulation, parts: &[Part]) -> Swapped {
        let mut swapped = Swapped::default();
        let wants = |right: Rights| move |part: &&Part| part.rights.contains(right);
        if emulation.keeps_memory {
            parts.iter().filter(wants(Rights::W)).for_each(|part| swapped.keep(host, part.gfn, part.offset, part.size));
        }
        let Some(reads) = &emulation.reads else { return swapped };
        for part in parts.iter().filter(wants(Rights::R)) {
            let writes = parts.iter().any(|other| (other.gla, other.rights.contains(Rights::W)) == (part.gla, true));
            if !writes {
                swapped.keep(host, part.gfn, part.offset, part.size);
            }
            let content = |at: u16| reads.get(usize::from(part.before + at)).copied().unwrap_or(0);
            let content: Vec<u8> = (0..part.size).map(content).collect();
            report("write", part.gfn, host.memory.write(part.gfn, part.offset, &content));
        }
        swapped
    }

    /// Before the instruction: it consists of other bytes, of which these lie in one frame each.
    pub fn code(host: &Host, parts: &[(Gfn, u16, &[u8])]) -> Swapped {
        let mut swapped = Swapped::default();
        for (gfn, offset, bytes) in parts {
            swapped.keep(host, *gfn, *offset, u16::try_from(bytes.len()).unwrap_or(u16::MAX));
            report("write", *gfn, host.memory.write(*gfn, *offset, bytes));
        }
        swapped
    }

    fn keep(&mut self, host: &Host, gfn: Gfn, offset: u16, size: u16) {
        let mut bytes = vec![0; usize::from(size)];
        match host.memory.read(gfn, offset, &mut bytes) {
            Ok(()) => self.0.push(Kept { gfn, offset, bytes }),
            Err(error) => report("read", gfn, Err(error)),
        }
    }

    /// After the instruction, the last first: where two overlap the first has what was there before both.
    pub fn back(self, host: &Host) {
        for Kept { gfn, offset, bytes } in self.0.into_iter().rev() {
            report("write", gfn, host.memory.write(gfn, offset, &bytes));
        }
    }
}
