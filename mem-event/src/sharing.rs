//! Sharing: equal frames become one, write-protected, until one of them is written (Xen 4.2's `mem_sharing_*`).
//!
//! The engine never sees contents: the caller that shares two frames has compared them, after nominating both (no write to them
//! goes unnoticed from then on).

use crate::control::Ring;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::errno::Errno;
use crate::life::Life;
use crate::number::{Gfn, VcpuId};
use crate::p2m::{Entry, P2mType};

impl Domain {
    /// `Control::NominateShare`: the frame is write-protected; the value is its handle.
    pub(crate) fn nominate_share(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if let Some(refused) = self.no_sharing() {
            return refused;
        }
        let entry = self.p2m.get(gfn);
        if entry.kind == P2mType::RamShared {
            return Outcome::Value(self.shares.handles.get(&gfn.0).copied().unwrap_or_default());
        }
        if entry.kind != P2mType::RamRw || !entry.held {
            return Outcome::Refused(Errno::EINVAL, format!("frame {gfn} is {}, not sharable", entry.kind));
        }
        if entry.pins > 0 {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is mapped by somebody"));
        }
        let handle = self.shares.begin(gfn);
        self.p2m.set(gfn, Entry { kind: P2mType::RamShared, ..entry });
        effects.list.push(Effect::Tighten { first: gfn, count: 1 });
        Outcome::Value(handle)
    }

    /// `Control::Share`: the client frame's memory goes back to the budget, and it shows the source's.
    pub(crate) fn share(&mut self, source: (Gfn, u64), client: (Gfn, u64), effects: &mut Effects) -> Outcome {
        if let Some(refused) = self.no_sharing() {
            return refused;
        }
        for (gfn, handle) in [source, client] {
            if self.shares.handles.get(&gfn.0) != Some(&handle) {
                return Outcome::Refused(Errno::EINVAL, format!("{handle} is no handle of frame {gfn} (any more)"));
            }
        }
        if source.1 == client.1 {
            return Outcome::Refused(Errno::EINVAL, format!("frames {} and {} share already", source.0, client.0));
        }
        if self.p2m.get(client.0).pins > 0 {
            return Outcome::Refused(Errno::EBUSY, format!("frame {} is mapped by somebody", client.0));
        }
        if self.shares.has_company(client.0) {
            return Outcome::Refused(Errno::EBUSY, format!("frame {} is shared with others", client.0));
        }
        self.shares.leave(client.0);
        self.shares.join(client.0, source.1);
        effects.list.push(Effect::Share { source: source.0, client: client.0 });
        self.grant_frames(effects);
        Outcome::Proceed
    }

    /// A vCPU writes to a shared frame: it gets a copy of its own, or waits for the memory.
    pub(crate) fn unshare(&mut self, vcpu: VcpuId, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.shares.has_company(gfn) && !self.take_frame(vcpu) {
            return self.out_of_memory(vcpu, gfn, effects);
        }
        self.make_private(gfn, effects);
        Outcome::Proceed
    }

    /// A foreign caller writes to it: without memory it gets an error, and the content stays shared.
    pub(crate) fn unshare_foreign(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.shares.has_company(gfn) && self.available() == 0 {
            self.out_of_memory_foreign(gfn, effects);
            return self.retry(Errno::ENOMEM);
        }
        self.make_private(gfn, effects);
        Outcome::Proceed
    }

    fn make_private(&mut self, gfn: Gfn, effects: &mut Effects) {
        let copy = self.shares.leave(gfn);
        let entry = self.p2m.get(gfn);
        self.p2m.set(gfn, Entry { kind: P2mType::RamRw, ..entry });
        self.room = true;
        effects.list.push(Effect::Unshare { gfn, copy });
    }

    /// A frame goes for good: its memory too, unless others show it.
    pub(crate) fn give_frame_back(&mut self, gfn: Gfn, kind: P2mType, effects: &mut Effects) {
        if kind == P2mType::RamShared {
            self.shares.leave(gfn);
        }
        effects.list.push(Effect::Punch(gfn));
    }

    fn no_sharing(&self) -> Option<Outcome> {
        if self.life == Life::Dying {
            return Some(Outcome::Refused(Errno::EINVAL, "the domain is being torn down".to_string()));
        }
        (!self.config.hap).then(|| {
            Outcome::Refused(Errno::ENODEV, format!("the {} operations need hardware-assisted paging", Ring::Sharing))
        })
    }
}
