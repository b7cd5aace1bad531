//! Bytes of guest memory that are others for one instruction, while no vCPU runs but the one that does it.

use crate::host::domain_host::{Host, report};
use crate::host::parts::Part;
use mem_event::{Emulation, Gfn, Rights, VcpuId};

/// Bytes that come back after the instruction.
#[derive(Clone, Debug)]
struct Kept {
    gfn: Gfn,
    offset: u16,
    bytes: Vec<u8>,
}

/// Bytes of another frame's that stand in a frame which shows it.
#[derive(Clone, Debug)]
struct Shown {
    gfn: Gfn,
    other: Gfn,
    offset: u16,
    bytes: Vec<u8>,
}

/// What memory gets back once the instruction is over.
#[derive(Clone, Debug, Default)]
pub struct Swapped {
    kept: Vec<Kept>,
    /// What the instruction may write, to be the other frames'.
    shown: Vec<Shown>,
}

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

    /// The same where the instruction is done by its vCPU's view: in frames that show others' memory it finds that.
    pub fn by_view(host: &Host, vcpu: VcpuId, parts: &[Part]) -> Swapped {
        let mut swapped = Swapped::default();
        for part in parts {
            let Some((other, _)) = host.rights.shown_to(vcpu, part.gfn) else { continue };
            let Part { gfn, offset, .. } = *part;
            let mut bytes = vec![0; usize::from(part.size)];
            report("read", other, host.read(other, offset, &mut bytes));
            swapped.keep(host, gfn, offset, part.size);
            report("write", gfn, host.memory.write(gfn, offset, &bytes));
            if part.rights.contains(Rights::W) {
                swapped.shown.push(Shown { gfn, other, offset, bytes });
            }
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
            Ok(()) => self.kept.push(Kept { gfn, offset, bytes }),
            Err(error) => report("read", gfn, Err(error)),
        }
    }

    /// After the instruction, the last first: where two overlap the first has what was there before both. What was written goes where it belongs.
    pub fn back(self, host: &Host) {
        for Shown { gfn, other, offset, bytes } in self.shown {
            let mut now = vec![0; bytes.len()];
            report("read", gfn, host.memory.read(gfn, offset, &mut now));
            if now != bytes {
                report("write", other, host.write(other, offset, &now));
            }
        }
        for Kept { gfn, offset, bytes } in self.kept.into_iter().rev() {
            report("write", gfn, host.memory.write(gfn, offset, &bytes));
        }
    }
}
