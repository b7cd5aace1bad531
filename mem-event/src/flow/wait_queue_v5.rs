//! `wait-queue-v5`, the patch "mem_event: use wait queue when ring is full" as it was sent on 2011-12-05. A vCPU's claim always
//! succeeds, also on a full ring; where there is no room when it comes to *put* its request, it sleeps there, on the ring's wait queue,
//! and the caller may have paused it for its event before.

use crate::control::Ring;
use crate::flow::outcome::{Place, Put, Try};
use crate::flow::stops::{BLOCKED, Stops, flag_of};
use crate::flow::waiters::Waiters;
use crate::number::VcpuId;
use bincode::{Decode, Encode};

/// The patch's part of `struct mem_event_domain`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct WaitQueueV5 {
    kind: Ring,
    pub(crate) ring: bool,
    /// Unsigned shorts, as in the patch: they wrap.
    pub(crate) targets: u16,
    pub(crate) foreigners: u16,
    /// `bit`: 0 until the first enable, which is the flag of a vCPU that any interrupt wakes.
    bit: u8,
    pub(crate) waiters: Waiters,
}

impl WaitQueueV5 {
    pub(crate) fn new(kind: Ring) -> WaitQueueV5 {
        WaitQueueV5 { kind, ring: false, targets: 0, foreigners: 0, bit: BLOCKED, waiters: Waiters::default() }
    }

    /// `mem_event_enable` wakes those that waited for a listener. It sets no producers to 0.
    pub(crate) fn enable(&mut self, stops: &mut Stops) {
        self.ring = true;
        self.bit = flag_of(self.kind);
        self.waiters = Waiters::default();
        stops.unmark_all(self.bit);
    }

    /// EBUSY with sleepers, whom it does not wake: `false`.
    pub(crate) fn disable(&mut self) -> bool {
        let idle = self.waiters.list.is_empty();
        self.ring &= !idle;
        idle
    }

    /// `mem_event_claim_slot` for one of the domain's vCPUs: there is always a slot.
    pub(crate) fn claim(&mut self) -> Try {
        if !self.ring {
            return Try::NoRing;
        }
        self.targets = self.targets.wrapping_add(1);
        Try::Slot
    }

    /// For anybody else: one slot stays for the guest. C adds the shorts as ints.
    pub(crate) fn claim_foreign(&mut self, free: u32) -> Try {
        if !self.ring {
            return Try::NoRing;
        }
        if u32::from(self.foreigners) + u32::from(self.targets) + 1 < free {
            self.foreigners = self.foreigners.wrapping_add(1);
            return Try::Slot;
        }
        Try::Refused
    }

    /// `_mem_event_put_request`: whether there was room.
    fn has_put(&mut self, foreign: bool, free: u32) -> bool {
        let room = free > 0 && (foreign || free > u32::from(self.foreigners));
        if room {
            self.release(foreign);
        }
        room
    }

    /// `mem_event_put_request` for a vCPU, also when it is woken and tries again. There is no test for a ring.
    pub(crate) fn put(&mut self, vcpu: VcpuId, free: u32, stops: &mut Stops) -> Put {
        if !self.ring {
            return Put::Fault;
        }
        if self.has_put(false, free) {
            return Put::Done { blocked: false };
        }
        self.waiters.join(vcpu, stops);
        Put::Asleep
    }

    /// For anybody else: where there is no room the request is lost, with a line on the console, and its claim stays counted.
    pub(crate) fn put_foreign(&mut self, free: u32) -> Put {
        if !self.ring {
            return Put::Fault;
        }
        if self.has_put(true, free) { Put::Done { blocked: false } } else { Put::Lost }
    }

    /// `mem_event_release_slot`: nobody is woken.
    pub(crate) fn release(&mut self, foreign: bool) {
        let count = if foreign { &mut self.foreigners } else { &mut self.targets };
        *count = count.wrapping_sub(1);
    }

    /// The end of `p2m_mem_paging_resume` and of `p2m_mem_access_resume`, after the answered vCPU was unpaused: as many are woken as there
    /// are free slots. Only access wakes those that waited for a listener, and sharing wakes nobody.
    pub(crate) fn answered(&mut self, free: u32, stops: &mut Stops) {
        if self.kind != Ring::Sharing {
            self.waiters.wake(free, stops);
        }
        if self.kind == Ring::Access {
            stops.unmark_all(self.bit);
        }
    }

    /// Whether its flag is one that there is.
    pub(crate) fn is_sound(&self) -> bool {
        self.bit == BLOCKED || self.bit == flag_of(self.kind)
    }

    /// `mem_event_mark_and_sleep`: there is no listener.
    pub(crate) fn without_listener(&self, vcpu: VcpuId, stops: &mut Stops) -> Try {
        stops.mark(vcpu, self.bit);
        Try::Asleep(Place::Flag)
    }
}
