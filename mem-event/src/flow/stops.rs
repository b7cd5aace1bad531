//! What keeps a domain's vCPUs from running, counted as Xen counts it: one count of pauses and one word of pause flags a vCPU, for all
//! rings together. A policy that lets a vCPU sleep says so here, and who may run again is on the list [`Stops::woken`].

use crate::control::Ring;
use crate::number::VcpuId;
use bincode::{Decode, Encode};

/// The pause flag of a vCPU that sleeps until an interrupt. `bit` of a ring that was never enabled names it, too.
pub const BLOCKED: u8 = 0;

/// The pause flag of a ring's sleepers: Xen's `_VPF_mem_paging`, `_VPF_mem_access`, `_VPF_mem_sharing`.
#[must_use]
pub const fn flag_of(ring: Ring) -> u8 {
    match ring {
        Ring::Paging => 4,
        Ring::Access => 5,
        Ring::Sharing => 6,
    }
}

const FLAGS: usize = 8;

/// `pause_count` and `pause_flags` of one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Stop {
    /// How many want it stopped. Signed: the sources of 2011 let it run below 0.
    pub pauses: i32,
    /// One bit a reason.
    pub flags: u8,
}

/// Who has a flag, so that nobody looks at 4,096 vCPUs to find two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
struct Marked {
    words: Vec<u64>,
    count: u32,
}

/// The stops of all vCPUs of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Stops {
    vcpus: Vec<Stop>,
    marked: [Marked; FLAGS],
    /// An answer takes no count below 0 (Xen's 868d9b99b3, three years after the patch).
    floor: bool,
    /// Those that may run again, in the order in which they were woken. The caller empties it.
    pub woken: Vec<VcpuId>,
}

impl Stops {
    /// So many vCPUs, all of which run.
    #[must_use]
    pub fn new(vcpus: u32) -> Stops {
        let words = vec![0; vcpus.div_ceil(64) as usize];
        Stops {
            vcpus: vec![Stop::default(); vcpus as usize],
            marked: std::array::from_fn(|_| Marked { words: words.clone(), count: 0 }),
            floor: false,
            woken: Vec::new(),
        }
    }

    /// The same, where an answer takes no count below 0.
    #[must_use]
    pub fn with_floor(vcpus: u32) -> Stops {
        Stops { floor: true, ..Stops::new(vcpus) }
    }

    /// How many vCPUs there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        u32::try_from(self.vcpus.len()).unwrap_or(u32::MAX)
    }

    /// Whether there is none: before a policy that counts pauses is chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.vcpus.is_empty()
    }

    /// Count and flags of a vCPU.
    #[must_use]
    pub fn of(&self, vcpu: VcpuId) -> Stop {
        self.vcpus.get(vcpu.0 as usize).copied().unwrap_or_default()
    }

    /// `vcpu_runnable`.
    #[must_use]
    pub fn runs(&self, vcpu: VcpuId) -> bool {
        self.of(vcpu) == Stop::default()
    }

    fn at(&mut self, vcpu: VcpuId) -> &mut Stop {
        &mut self.vcpus[vcpu.0 as usize]
    }

    /// `vcpu_pause_nosync`.
    pub fn pause(&mut self, vcpu: VcpuId) {
        self.at(vcpu).pauses += 1;
    }

    /// `vcpu_unpause`: whoever takes the count to 0 wakes.
    pub fn unpause(&mut self, vcpu: VcpuId) {
        self.at(vcpu).pauses -= 1;
        if self.of(vcpu).pauses == 0 {
            self.wake(vcpu);
        }
    }

    /// The unpause of an answer.
    pub fn answer(&mut self, vcpu: VcpuId) {
        if !self.floor || self.of(vcpu).pauses > 0 {
            self.unpause(vcpu);
        }
    }

    /// `vcpu_wake`: does nothing to a vCPU that something else holds.
    pub fn wake(&mut self, vcpu: VcpuId) {
        if self.runs(vcpu) {
            self.woken.push(vcpu);
        }
    }

    /// `test_and_set_bit`: whether the flag is new.
    pub fn mark(&mut self, vcpu: VcpuId, flag: u8) -> bool {
        let bit = 1 << flag;
        if self.of(vcpu).flags & bit != 0 {
            return false;
        }
        self.at(vcpu).flags |= bit;
        let marked = &mut self.marked[flag as usize];
        marked.words[vcpu.0 as usize / 64] |= 1 << (vcpu.0 % 64);
        marked.count += 1;
        true
    }

    /// `test_and_clear_bit`: whether the flag was there. It wakes nobody.
    pub fn unmark(&mut self, vcpu: VcpuId, flag: u8) -> bool {
        let bit = 1 << flag;
        if self.of(vcpu).flags & bit == 0 {
            return false;
        }
        self.at(vcpu).flags &= !bit;
        let marked = &mut self.marked[flag as usize];
        marked.words[vcpu.0 as usize / 64] &= !(1 << (vcpu.0 % 64));
        marked.count -= 1;
        true
    }

    /// Clears the flag of every vCPU that has it, in the order of their numbers, and wakes them.
    pub fn unmark_all(&mut self, flag: u8) {
        while self.marked[flag as usize].count > 0 {
            let Some(vcpu) = self.next_marked(flag, VcpuId(0)) else { return };
            self.unmark(vcpu, flag);
            self.wake(vcpu);
        }
    }

    /// How many have the flag.
    #[must_use]
    pub fn count(&self, flag: u8) -> u32 {
        self.marked[flag as usize].count
    }

    /// The first vCPU with the flag, from this one on and round.
    #[must_use]
    pub fn next_marked(&self, flag: u8, from: VcpuId) -> Option<VcpuId> {
        let marked = &self.marked[flag as usize];
        if marked.count == 0 {
            return None;
        }
        let (start, words) = (from.0 as usize / 64, marked.words.len());
        let below = (1u64 << (from.0 % 64)) - 1;
        let first = marked.words[start] & !below;
        let rest = (1..words).map(|step| (start + step) % words).map(|at| (at, marked.words[at]));
        let last = (start, marked.words[start] & below);
        let mut all = std::iter::once((start, first)).chain(rest).chain(std::iter::once(last));
        let (at, word) = all.find(|(_, word)| *word != 0)?;
        u32::try_from(at * 64).ok().map(|base| VcpuId(base + word.trailing_zeros()))
    }

    /// Nothing stops the vCPU any more, whatever did; its flags are the callers'.
    pub(crate) fn release(&mut self, vcpu: VcpuId) {
        self.at(vcpu).pauses = 0;
        for flag in 0..FLAGS {
            self.unmark(vcpu, u8::try_from(flag).unwrap_or_default());
        }
    }

    /// Whether what is read from a file can be the stops of so many vCPUs.
    pub(crate) fn is_sound(&self, vcpus: u32) -> bool {
        let near_zero = |stop: &Stop| (-0x10000..0x10000).contains(&stop.pauses);
        let mut expected = Stops::new(vcpus);
        if self.len() != vcpus || !self.vcpus.iter().all(near_zero) || !self.woken.is_empty() {
            return false;
        }
        for vcpu in (0..vcpus).map(VcpuId) {
            for flag in 0..FLAGS {
                if self.of(vcpu).flags & 1 << flag != 0 {
                    expected.mark(vcpu, u8::try_from(flag).unwrap_or_default());
                }
            }
        }
        self.marked == expected.marked
    }

    /// An interrupt is for this vCPU: it wakes one that is only blocked.
    pub fn interrupt(&mut self, vcpu: VcpuId) {
        if self.unmark(vcpu, BLOCKED) {
            self.wake(vcpu);
        }
    }
}
