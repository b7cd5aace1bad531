//! `check-ring`, what stood before the patch (the tree of November 2011): one count of producers, and a vCPU that finds the ring full is
//! marked and sleeps *without its event*. An instruction that faults makes the event anew when the vCPU runs again; a write of a control
//! register has happened by then, and its event is lost. Every answer on any ring wakes everybody that is marked.

use crate::flow::outcome::{Place, Put, Try};
use crate::flow::stops::Stops;
use crate::number::VcpuId;
use bincode::{Decode, Encode};

/// `_VPF_mem_event`: one flag for all rings.
pub const FLAG: u8 = 4;

/// `req_producers`, and whether there is a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct CheckRing {
    pub(crate) ring: bool,
    pub(crate) producers: u32,
}

impl CheckRing {
    pub(crate) fn enable(&mut self, stops: &mut Stops) {
        self.ring = true;
        stops.unmark_all(FLAG);
    }

    /// Whoever is marked stays so until the next enable. Claims that are out write through a stale pointer later.
    pub(crate) fn disable(&mut self) {
        self.ring = false;
    }

    fn room(&mut self, free: u32) -> bool {
        let room = self.producers < free;
        self.producers += u32::from(room);
        room
    }

    /// `mem_event_check_ring` for one of the domain's vCPUs.
    pub(crate) fn claim(&mut self, vcpu: VcpuId, free: u32, stops: &mut Stops) -> Try {
        if !self.ring {
            return Try::NoRing;
        }
        if self.room(free) {
            return Try::Slot;
        }
        stops.mark(vcpu, FLAG);
        Try::Asleep(Place::Flag)
    }

    pub(crate) fn claim_foreign(&mut self, free: u32) -> Try {
        match (self.ring, self.ring && self.room(free)) {
            (false, _) => Try::NoRing,
            (true, true) => Try::Slot,
            (true, false) => Try::Refused,
        }
    }

    /// `mem_event_put_request` tests nothing: the claim has.
    pub(crate) fn put(&mut self) -> Put {
        if !self.ring {
            return Put::Fault;
        }
        self.release();
        Put::Done { blocked: false }
    }

    /// `mem_event_put_req_producers`: nobody is woken.
    pub(crate) fn release(&mut self) {
        self.producers = self.producers.wrapping_sub(1);
    }

    /// `mem_event_unpause_vcpus`, after the answer's own effects.
    pub(crate) fn answered(stops: &mut Stops) {
        stops.unmark_all(FLAG);
    }
}
