//! `blocked-2012`, what Xen took in the end. A vCPU sleeps inside its claim, on a wait queue, and nothing is handed over with the wake:
//! it must claim again, and another may be faster. A vCPU that has put its request and finds few slots left is *blocked* on its way out,
//! with a flag and a pause of its own, and woken in rounds.

use crate::control::Ring;
use crate::flow::outcome::{Place, Put, Try};
use crate::flow::stops::{Stops, flag_of};
use crate::flow::waiters::Waiters;
use crate::number::VcpuId;
use bincode::{Decode, Encode};

/// Which of its years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Form {
    /// As merged (3643a96119): every poster may be blocked, also one that its event has paused; blocked ones are woken only while fewer
    /// vCPUs are online than slots are free.
    Merged,
    /// As in Xen 4.17 (from 7f8445d967 on): an event-paused poster is not blocked, and one blocked vCPU is woken for each free slot.
    Xen417,
}

/// The accounts of a `vm_event_domain`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Blocked2012 {
    form: Form,
    pub(crate) ring: bool,
    flag: u8,
    pub(crate) targets: u32,
    pub(crate) foreigners: u32,
    pub(crate) blocked: u32,
    last_woken: u32,
    pub(crate) waiters: Waiters,
}

impl Blocked2012 {
    pub(crate) fn new(form: Form, flag: u8) -> Blocked2012 {
        Blocked2012 {
            form,
            ring: false,
            flag,
            targets: 0,
            foreigners: 0,
            blocked: 0,
            last_woken: 0,
            waiters: Waiters::default(),
        }
    }

    /// Nobody can wait without a ring, so nobody is woken.
    pub(crate) fn enable(&mut self) {
        *self = Blocked2012 { ring: true, ..Blocked2012::new(self.form, self.flag) };
    }

    /// EBUSY with queued vCPUs: `false`. Blocked ones run on.
    pub(crate) fn disable(&mut self, stops: &mut Stops) -> bool {
        if !self.waiters.list.is_empty() {
            return false;
        }
        while let Some(vcpu) = stops.next_marked(self.flag, VcpuId(0)) {
            stops.unmark(vcpu, self.flag);
            stops.unpause(vcpu);
            self.blocked -= 1;
        }
        self.ring = false;
        true
    }

    /// `ring_available`: what is free and not claimed.
    pub(crate) fn available(&self, free: u32) -> u32 {
        let claimed = self.targets + self.foreigners;
        assert!(claimed <= free, "{claimed} slots are claimed of {free}");
        free - claimed
    }

    /// `wait_slot`: a vCPU's claim, also when it was woken and tries again.
    pub(crate) fn claim(&mut self, vcpu: VcpuId, free: u32, stops: &mut Stops) -> Try {
        if !self.ring {
            return Try::NoRing;
        }
        if self.available(free) == 0 {
            self.waiters.join(vcpu, stops);
            return Try::Asleep(Place::Claim);
        }
        self.targets += 1;
        Try::Slot
    }

    /// `grab_slot` for anybody else: the last slot, too, and also before a queued vCPU that has not claimed yet.
    pub(crate) fn claim_foreign(&mut self, free: u32) -> Try {
        if !self.ring {
            return Try::NoRing;
        }
        if self.available(free) == 0 {
            return Try::Refused;
        }
        self.foreigners += 1;
        Try::Slot
    }

    /// `put_request`; `free` is from before it. The wake of `release_slot` comes first, so a put wakes others before it blocks its own.
    pub(crate) fn put(&mut self, poster: Option<VcpuId>, paused: bool, free: u32, stops: &mut Stops) -> Put {
        if !self.ring {
            return Put::Fault;
        }
        assert!(free > 0, "a put after a claim found no slot");
        self.release(poster.is_none(), free - 1, stops);
        let few = self.available(free - 1) < stops.len();
        let exempt = paused && self.form == Form::Xen417;
        let Some(vcpu) = poster.filter(|_| few && !exempt) else { return Put::Done { blocked: false } };
        if stops.mark(vcpu, self.flag) {
            stops.pause(vcpu);
            self.blocked += 1;
        }
        Put::Done { blocked: true }
    }

    /// `release_slot`, which `cancel_slot` is, too.
    pub(crate) fn release(&mut self, foreign: bool, free: u32, stops: &mut Stops) {
        let count = if foreign { &mut self.foreigners } else { &mut self.targets };
        assert!(*count > 0, "more claims are given back than were made");
        *count -= 1;
        self.wake(free, stops);
    }

    /// `vm_event_wake`, also when an answer was taken and before its effects: queued ones first, blocked ones only where nobody is queued.
    pub(crate) fn wake(&mut self, free: u32, stops: &mut Stops) {
        let available = self.available(free);
        if !self.waiters.list.is_empty() {
            self.waiters.wake(available, stops);
        } else if available > 0 && self.blocked > 0 {
            self.wake_blocked(available, stops);
        }
    }

    /// A blocked vCPU is blocked no more, for another reason than room.
    pub(crate) fn unblock(&mut self, vcpu: VcpuId, stops: &mut Stops) {
        self.blocked -= u32::from(stops.unmark(vcpu, self.flag));
    }

    /// Whether its flag is one that there is, and its counts are small enough to be counted with.
    pub(crate) fn is_sound(&self) -> bool {
        Ring::ALL.into_iter().any(|ring| flag_of(ring) == self.flag) && self.targets.max(self.foreigners) < 1 << 16
    }

    /// Whether as many vCPUs have its flag as it counts.
    pub(crate) fn agrees(&self, stops: &Stops) -> bool {
        self.blocked == stops.count(self.flag) && self.last_woken < stops.len()
    }

    fn wake_blocked(&mut self, available: u32, stops: &mut Stops) {
        let vcpus = stops.len();
        let first = (self.last_woken + 1) % vcpus;
        let most = match self.form {
            Form::Xen417 => available,
            // While fewer are online than slots are free.
            Form::Merged => available.saturating_sub(vcpus - self.blocked),
        };
        let mut from = first;
        for _ in 0..most {
            let Some(vcpu) = stops.next_marked(self.flag, VcpuId(from)) else { return };
            stops.unmark(vcpu, self.flag);
            stops.unpause(vcpu);
            self.blocked -= 1;
            self.last_woken = vcpu.0;
            from = (vcpu.0 + 1) % vcpus;
        }
    }
}
