//! Accesses of those who are no vCPU: devices, mappers. They never sleep; where they cannot go on they are told to come back.

use crate::access::check;
use crate::domain::{Domain, Life};
use crate::effect::{Effects, Outcome};
use crate::errno::Errno;
use crate::input::Access;
use crate::number::Gfn;
use crate::p2m::P2mType;
use crate::rights::Rights;

impl Domain {
    /// Somebody who is no vCPU is about to access a frame: [`crate::Input::Foreign`] without the wrapping. The guest's access
    /// rights do not bind him, as in Xen.
    pub fn foreign(&mut self, access: &Access, effects: &mut Effects) -> Outcome {
        if self.life != Life::Alive {
            return Outcome::Crashed;
        }
        if let Err(sentence) = check(access) {
            return Outcome::Refused(Errno::EINVAL, sentence);
        }
        let outcome = match self.p2m_type(access.gfn) {
            kind if kind.is_paging() => self.populate_foreign(access.gfn, effects),
            P2mType::PopulateOnDemand | P2mType::Invalid => self.first_touch_foreign(access.gfn, effects),
            P2mType::RamShared if access.rights.contains(Rights::W) => self.unshare_foreign(access.gfn, effects),
            _ => Outcome::Proceed,
        };
        self.end_step(effects);
        outcome
    }

    fn first_touch_foreign(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.frames.available() == 0 {
            self.out_of_memory_foreign(gfn, effects);
            return self.retry(Errno::ENOMEM);
        }
        self.frames.resident += 1;
        self.give_memory(gfn, effects);
        Outcome::Proceed
    }
}
