//! Who stands in the kernel, stopped on a page of guest memory.
//!
//! The kernel lets threads go by page. So a page is put back only when each vCPU stopped on it has its answer; until then the
//! others wait with it.

use mem_event::{Access, Gfn, VcpuId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Who touched a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Toucher {
    /// A vCPU's thread.
    Vcpu(VcpuId),
    /// A device: in QEMU's main loop, in an I/O thread, or in the thread of the vCPU that wrote to its register.
    Foreign,
}

/// One touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The frame.
    pub gfn: Gfn,
    /// The offset in the frame.
    pub offset: u16,
    /// Whether it was a write.
    pub write: bool,
}

/// Somebody who asks the engine, for the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Who.
    pub toucher: Toucher,
    /// What the kernel said.
    pub fault: Fault,
    /// What the engine is asked.
    pub access: Access,
}

/// All who are stopped, and who of them must look again.
#[derive(Debug, Default)]
pub struct Stopped {
    vcpus: BTreeMap<VcpuId, Look>,
    /// With the moment since when.
    foreign: Vec<(Look, Instant)>,
    looking: VecDeque<Look>,
    minor: bool,
    missing: bool,
}

impl Stopped {
    /// Whether userfaultfd is registered, and with `paging` for first touches too.
    pub fn is_prepared(&self, paging: bool) -> bool {
        if paging { self.missing } else { self.minor }
    }

    /// userfaultfd is registered.
    pub fn prepared(&mut self, paging: bool) {
        self.minor = true;
        self.missing |= paging;
    }

    /// Somebody stopped, and is to look for the first time.
    pub fn add(&mut self, look: Look) {
        match look.toucher {
            Toucher::Vcpu(vcpu) => {
                self.vcpus.insert(vcpu, look);
            }
            Toucher::Foreign => self.foreign.push((look, Instant::now())),
        }
        self.looking.push_back(look);
    }

    /// A vCPU was woken; says whether it is one of these, which then looks again.
    pub fn wake(&mut self, vcpu: VcpuId) -> bool {
        let Some(look) = self.vcpus.get(&vcpu) else { return false };
        self.looking.push_back(*look);
        true
    }

    /// Foreign touchers that were told to retry look again.
    pub fn wake_foreign(&mut self) {
        for (look, _) in &self.foreign {
            if !self.looking.contains(look) {
                self.looking.push_back(*look);
            }
        }
    }

    /// The next who looks again.
    pub fn next_to_look(&mut self) -> Option<Look> {
        self.looking.pop_front()
    }

    /// Somebody may go on; says whether nobody else is stopped on the page, which can be put back then.
    pub fn remove(&mut self, toucher: Toucher, fault: Fault) -> bool {
        match toucher {
            Toucher::Vcpu(vcpu) => {
                self.vcpus.remove(&vcpu);
            }
            Toucher::Foreign => self.foreign.retain(|(other, _)| other.fault != fault),
        }
        !self.is_touched(fault.gfn)
    }

    /// The frames that devices wait for, and since when.
    pub fn foreign(&self) -> impl Iterator<Item = (Gfn, Instant)> {
        self.foreign.iter().map(|(look, since)| (look.fault.gfn, *since))
    }

    /// Whether nobody is stopped.
    pub fn is_empty(&self) -> bool {
        self.vcpus.is_empty() && self.foreign.is_empty()
    }

    /// Whether anybody is stopped on the frame.
    pub fn is_touched(&self, gfn: Gfn) -> bool {
        self.vcpus.values().chain(self.foreign.iter().map(|(look, _)| look)).any(|look| look.fault.gfn == gfn)
    }
}
