//! The accesses that stand in the kernel, stopped on a page of guest memory.
//!
//! The kernel lets threads go by page. So a page is put back only when each vCPU stopped on it has its answer; until then the
//! others wait with it.

use crate::host::touch::{FrameFault, StoppedAccess, Toucher};
use mem_event::message::Stays;
use mem_event::{Access, Gfn, VcpuId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// What the kernel tells of, each with what is before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hears {
    /// Nothing: userfaultfd is not registered.
    #[default]
    Nothing,
    /// Touches of pages that are not mapped, and writes to those that are write-protected.
    Touches,
    /// First touches of memory.
    FirstTouches,
    /// And the engine knows which frames have no memory.
    Holes,
}

/// A vCPU's access, as it stands.
#[derive(Clone, Copy, Debug)]
pub struct Stand {
    /// The access.
    pub access: StoppedAccess,
    /// Since when the vCPU stands, this time: it leaves its block now and then, and comes back.
    pub since: Instant,
    /// It was told to leave when it had left so often, and has not come back.
    pub told: Option<u64>,
    /// Why it does not leave.
    pub stays: Option<Stays>,
    /// It has its answer, and waits with others on the page.
    is_answered: bool,
    /// It has its answer, and was told to leave: it goes on elsewhere, without this access.
    moves: bool,
    /// What is asked for before its access asks: another frame of its instruction.
    ahead: Option<Access>,
    /// It has its answer, and was out of its block by then: it asks again when it is back.
    asks_when_back: bool,
}

impl Stand {
    /// It stands from now on.
    fn at(access: StoppedAccess) -> Stand {
        Stand {
            access,
            since: Instant::now(),
            told: None,
            stays: None,
            is_answered: false,
            moves: false,
            ahead: access.ahead,
            asks_when_back: false,
        }
    }
}

/// All accesses that stand in the kernel, and which of them must ask again.
#[derive(Debug, Default)]
pub struct KernelStops {
    vcpus: BTreeMap<VcpuId, Stand>,
    /// With the moment since when.
    foreign: Vec<(StoppedAccess, Instant)>,
    asking: VecDeque<StoppedAccess>,
    hears: Hears,
}

impl KernelStops {
    /// What the kernel tells of.
    pub fn hears(&self) -> Hears {
        self.hears
    }

    /// It tells of that from now on.
    pub fn will_hear(&mut self, hears: Hears) {
        self.hears = hears;
    }

    /// A thread stopped, and its access is to ask for the first time.
    pub fn add(&mut self, access: StoppedAccess) {
        match access.toucher {
            Toucher::Vcpu(vcpu) => {
                self.vcpus.insert(vcpu, Stand::at(access));
            }
            Toucher::Foreign => self.foreign.push((access, Instant::now())),
        }
        self.asking.push_back(access);
    }

    /// Whether the vCPU that stands at this access was told to leave it.
    pub fn is_told(&self, access: &StoppedAccess) -> bool {
        let Toucher::Vcpu(vcpu) = access.toucher else { return false };
        self.vcpus.get(&vcpu).is_some_and(|stand| stand.access.fault == access.fault && stand.told.is_some())
    }

    /// A vCPU that was told to leave, and has heard of it, stands at the same access again, of which the engine knows; `left`: how often it has
    /// left. One that did not will not.
    pub fn comes_back(&mut self, access: &StoppedAccess, left: u64) -> bool {
        let Toucher::Vcpu(vcpu) = access.toucher else { return false };
        let Some(stand) = self.vcpus.get_mut(&vcpu).filter(|stand| stand.access.fault == access.fault) else {
            return false;
        };
        stand.stays = (stand.told.take() == Some(left)).then_some(Stays::Held);
        stand.since = Instant::now();
        if std::mem::take(&mut stand.asks_when_back) {
            self.asking.push_back(stand.access);
        }
        true
    }

    /// A vCPU that stands has its answer, and goes on elsewhere when it has left, as it was told when it had left so often.
    pub fn moves(&mut self, vcpu: VcpuId, left: u64) {
        if let Some(stand) = self.vcpus.get_mut(&vcpu) {
            (stand.moves, stand.told) = (true, Some(left));
        }
    }

    /// A vCPU that was told to leave, and is told no more, goes on where it stands, or, if it has left meanwhile, asks again when it is back; says
    /// whether it has. `left`: how often it has left.
    pub fn asks_when_back(&mut self, vcpu: VcpuId, left: u64) -> bool {
        let Some(stand) = self.vcpus.get_mut(&vcpu) else { return false };
        stand.asks_when_back = stand.told != Some(left);
        if !stand.asks_when_back {
            stand.told = None;
        }
        stand.asks_when_back
    }

    /// Whether a vCPU that was to go on elsewhere did not leave: it asks again where it stands.
    pub fn cannot_move(&mut self, vcpu: VcpuId) -> bool {
        let Some(stand) = self.vcpus.get_mut(&vcpu).filter(|stand| stand.moves && stand.stays.is_some()) else {
            return false;
        };
        stand.moves = false;
        self.asking.push_back(stand.access);
        true
    }

    /// A vCPU that stands asks for another frame before its own access asks again.
    pub fn asks_ahead(&mut self, vcpu: VcpuId, access: Access) {
        if let Some(stand) = self.vcpus.get_mut(&vcpu) {
            stand.ahead = Some(access);
        }
    }

    /// What it was to ask for before, once.
    pub fn takes_ahead(&mut self, vcpu: VcpuId) -> Option<Access> {
        self.vcpus.get_mut(&vcpu)?.ahead.take()
    }

    /// Where a vCPU stands that has no answer, and how often it had left when it was told to, unless it came back.
    pub fn stand_of(&self, vcpu: VcpuId) -> Option<(FrameFault, Option<u64>)> {
        self.vcpus.get(&vcpu).filter(|stand| !stand.is_answered).map(|stand| (stand.access.fault, stand.told))
    }

    /// A vCPU that stands.
    pub fn stand(&mut self, vcpu: VcpuId) -> Option<&mut Stand> {
        self.vcpus.get_mut(&vcpu)
    }

    /// The vCPUs that stand.
    pub fn vcpus(&self) -> impl Iterator<Item = (VcpuId, &Stand)> {
        self.vcpus.iter().map(|(vcpu, stand)| (*vcpu, stand))
    }

    /// Whether a vCPU stands.
    pub fn stands(&self, vcpu: VcpuId) -> bool {
        self.vcpus.contains_key(&vcpu)
    }

    /// Whether a vCPU stands, and waits there for its page.
    pub fn waits(&self, vcpu: VcpuId) -> bool {
        self.vcpus.get(&vcpu).is_some_and(|stand| !stand.moves)
    }

    /// Why a vCPU that stands does not leave its block, if that is known.
    pub fn stays(&self, vcpu: VcpuId) -> Option<Stays> {
        self.vcpus.get(&vcpu)?.stays
    }

    /// A vCPU is gone, with its access; says on which frame it stood.
    pub fn forget(&mut self, vcpu: VcpuId) -> Option<Gfn> {
        self.asking.retain(|access| access.toucher != Toucher::Vcpu(vcpu));
        self.vcpus.remove(&vcpu).map(|stand| stand.access.fault.gfn)
    }

    /// A vCPU was woken; says whether one of its accesses stands here, which then asks again.
    pub fn wake(&mut self, vcpu: VcpuId) -> bool {
        let Some(stand) = self.vcpus.get(&vcpu).filter(|stand| !stand.is_answered && !stand.moves) else {
            return false;
        };
        self.asking.push_back(stand.access);
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

    /// An access may go on, as soon as no other is stopped on its page.
    pub fn answered(&mut self, toucher: Toucher, fault: FrameFault) {
        match toucher {
            Toucher::Vcpu(vcpu) => {
                if let Some(stand) = self.vcpus.get_mut(&vcpu) {
                    stand.is_answered = true;
                }
            }
            Toucher::Foreign => self.foreign.retain(|(other, _)| other.fault != fault),
        }
    }

    /// The page goes back, and with it those that have their answers: these vCPUs, where each stands, and whether it has been told to leave and
    /// not come back.
    pub fn let_go(&mut self, gfn: Gfn) -> Vec<(VcpuId, FrameFault, bool)> {
        // One that goes on elsewhere is told to leave, or has left: the page is nothing to it.
        let stands = |stand: &Stand| stand.access.fault.gfn == gfn && !stand.moves;
        let gone = self
            .vcpus
            .iter()
            .filter(|(_, stand)| stands(stand))
            .map(|(vcpu, stand)| (*vcpu, stand.access.fault, stand.told.is_some()))
            .collect();
        self.vcpus.retain(|_, stand| !stands(stand));
        gone
    }

    /// The frames that devices wait for, and since when.
    pub fn foreign(&self) -> impl Iterator<Item = (Gfn, Instant)> {
        self.foreign.iter().map(|(access, since)| (access.fault.gfn, *since))
    }

    /// Whether none is stopped.
    pub fn is_empty(&self) -> bool {
        self.vcpus.is_empty() && self.foreign.is_empty()
    }

    /// Whether any is stopped on the frame that the frame is kept from. One that was told to leave, to do its instruction alone, is not: its
    /// turn begins when all others are out of their blocks, and one that cannot leave waits for this page.
    pub fn is_touched(&self, gfn: Gfn) -> bool {
        let waits = |stand: &&Stand| !stand.is_answered && !stand.moves;
        let vcpus = self.vcpus.values().filter(waits).map(|stand| &stand.access);
        vcpus.chain(self.foreign.iter().map(|(access, _)| access)).any(|access| access.fault.gfn == gfn)
    }
}
