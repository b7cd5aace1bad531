//! The accesses that stand in the kernel, stopped on a page of guest memory.
//!
//! The kernel lets threads go by page. So a page is put back only when each vCPU stopped on it has its answer; until then the
//! others wait with it.

use crate::host::touch::{FrameFault, StoppedAccess, Toucher};
use mem_event::{Gfn, VcpuId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// All accesses that stand in the kernel, and which of them must ask again.
#[derive(Debug, Default)]
pub struct KernelStops {
    vcpus: BTreeMap<VcpuId, StoppedAccess>,
    /// With the moment since when.
    foreign: Vec<(StoppedAccess, Instant)>,
    asking: VecDeque<StoppedAccess>,
    minor: bool,
    missing: bool,
}

impl KernelStops {
    /// Whether userfaultfd is registered, and with `paging` for first touches too.
    pub fn is_prepared(&self, paging: bool) -> bool {
        if paging { self.missing } else { self.minor }
    }

    /// userfaultfd is registered.
    pub fn prepared(&mut self, paging: bool) {
        self.minor = true;
        self.missing |= paging;
    }

    /// A thread stopped, and its access is to ask for the first time.
    pub fn add(&mut self, access: StoppedAccess) {
        match access.toucher {
            Toucher::Vcpu(vcpu) => {
                self.vcpus.insert(vcpu, access);
            }
            Toucher::Foreign => self.foreign.push((access, Instant::now())),
        }
        self.asking.push_back(access);
    }

    /// A vCPU was woken; says whether one of its accesses stands here, which then asks again.
    pub fn wake(&mut self, vcpu: VcpuId) -> bool {
        let Some(access) = self.vcpus.get(&vcpu) else { return false };
        self.asking.push_back(*access);
        true
    }

    /// Foreign accesses that were told to retry ask again.
    pub fn wake_foreign(&mut self) {
        for (access, _) in &self.foreign {
            if !self.asking.contains(access) {
                self.asking.push_back(*access);
            }
        }
    }

    /// The next access that asks.
    pub fn next_to_ask(&mut self) -> Option<StoppedAccess> {
        self.asking.pop_front()
    }

    /// An access may go on; says whether no other is stopped on the page, which can be put back then.
    pub fn remove(&mut self, toucher: Toucher, fault: FrameFault) -> bool {
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
        self.foreign.iter().map(|(access, since)| (access.fault.gfn, *since))
    }

    /// Whether none is stopped.
    pub fn is_empty(&self) -> bool {
        self.vcpus.is_empty() && self.foreign.is_empty()
    }

    /// Whether any is stopped on the frame.
    pub fn is_touched(&self, gfn: Gfn) -> bool {
        self.vcpus.values().chain(self.foreign.iter().map(|(access, _)| access)).any(|access| access.fault.gfn == gfn)
    }
}
