//! Requests and what became of each, of a recorded run or of a live one.

use mem_event::{
    About, AccessType, CpuEventKind, Domain, Effect, Flags, Gfn, MonitorMode, Reason, Request, Response, Ring, VcpuId,
    WaitReason,
};

/// The flags of an answer by which the engine does something.
const EFFECTIVE: [Flags; 8] = [
    Flags::VCPU_PAUSED,
    Flags::DROP_PAGE,
    Flags::DUMMY,
    Flags::EMULATE,
    Flags::EMULATE_NOWRITE,
    Flags::TOGGLE_SINGLESTEP,
    Flags::DENY,
    Flags::SET_REGISTERS,
];

/// A request and its answer, if there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The ring.
    pub ring: Ring,
    /// The request.
    pub request: Request,
    /// The step that put it.
    pub asked: u64,
    /// The answer.
    pub answer: Option<Answer>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The step that took it.
    pub step: u64,
    /// What it left behind.
    pub left: Left,
}

/// What an answer left behind: all that the guest can notice of it, whatever calls brought it about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The flags of the answer by which the engine does something.
    pub flags: Flags,
    /// The rights of the request's frame; of violations.
    pub access: Option<AccessType>,
    /// How CPU events are reported, and whether the request's vCPU is stepped.
    pub monitors: ([MonitorMode; CpuEventKind::ALL.len()], bool),
}

/// Whose requests are compared with each other: those of a vCPU come in the same order in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    ring: usize,
    vcpu: Option<VcpuId>,
    frame: Option<Gfn>,
}

/// An answer that is wrong whatever was recorded, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No request that is out is meant.
    ForNone {
        /// The ring.
        ring: Ring,
        /// Whom it names.
        vcpu: u32,
        /// What it names.
        subject: u64,
        /// The request that it repeats the answer of: by its place.
        again: Option<usize>,
    },
    /// The vCPU of this request goes on waiting.
    LeavesWaiting(usize, Flags),
    /// Its version is another one.
    Version(usize, u32),
    /// A page-in is answered, and the frame has no content.
    NotLoaded(usize),
}

/// All requests of a run.
#[derive(Clone, Debug, Default)]
pub struct Exchanges {
    /// In the order in which they were put.
    pub all: Vec<Exchange>,
    out: Vec<usize>,
}

impl Exchanges {
    /// What a step did: which requests it put and which it answered, by their places; and what is wrong with an answer.
    pub fn step(
        &mut self,
        number: u64,
        effects: &[Effect],
        domain: &Domain,
    ) -> (Vec<usize>, Vec<usize>, Option<Wrong>) {
        let (mut put, mut answered, mut wrong) = (Vec::new(), Vec::new(), None);
        for effect in effects {
            match effect {
                Effect::Requested { ring, request, .. } => put.extend(self.asked(number, *ring, request)),
                Effect::Answered { ring, response, .. } => match self.answered(number, *ring, response, domain) {
                    Ok(place) => answered.push(place),
                    Err(why) => wrong = wrong.or(Some(why)),
                },
                _ => {}
            }
        }
        let wrong = wrong.or_else(|| answered.iter().find_map(|place| self.wrong(*place, domain)));
        (put, answered, wrong)
    }

    /// The place of a request that is new: one that is put again for a successor is not.
    fn asked(&mut self, step: u64, ring: Ring, request: &Request) -> Option<usize> {
        let again = |place: &&usize| {
            let out = &self.all[**place];
            out.ring == ring && out.request == *request && request.flags.contains(Flags::VCPU_PAUSED)
        };
        if self.out.iter().any(|place| again(&place)) {
            return None;
        }
        let place = self.all.len();
        self.all.push(Exchange { ring, request: *request, asked: step, answer: None });
        self.out.push(place);
        Some(place)
    }

    fn answered(&mut self, step: u64, ring: Ring, response: &Response, domain: &Domain) -> Result<usize, Wrong> {
        let (vcpu, subject) = (response.vcpu, response.subject());
        let same = |exchange: &Exchange| {
            let of_vcpu = exchange.request.flags.contains(Flags::FOREIGN) || exchange.request.vcpu.0 == vcpu;
            exchange.ring == ring && of_vcpu && exchange.request.event.subject() == subject
        };
        let echoed = |exchange: &Exchange| same(exchange) && response.about == About::Event(exchange.request.event);
        // On the access ring the engine goes by the vCPU alone, as Xen does.
        let nearly = |exchange: &Exchange| {
            let paused = exchange.request.flags.contains(Flags::VCPU_PAUSED);
            exchange.ring == ring && ring == Ring::Access && paused && exchange.request.vcpu.0 == vcpu
        };
        let find = |wanted: &dyn Fn(&Exchange) -> bool| self.out.iter().position(|place| wanted(&self.all[*place]));
        if let Some(version) = response.other_version {
            // Nothing else of it was read: it took the oldest slot.
            let oldest = find(&|exchange| exchange.ring == ring);
            return oldest.map_or(Err(Wrong::ForNone { ring, vcpu, subject, again: None }), |at| {
                Err(Wrong::Version(self.out[at], version))
            });
        }
        // Where no request that is out is echoed, one that is answered already may be: then this is the second answer to it. Else the
        // consumer does not echo, and the frame counts, or the vCPU.
        let again = self.all.iter().rposition(|exchange| echoed(exchange) && exchange.answer.is_some());
        let near = || if again.is_none() { find(&same).or_else(|| find(&nearly)) } else { None };
        let Some(at) = find(&echoed).or_else(near) else {
            return Err(Wrong::ForNone { ring, vcpu, subject, again });
        };
        let place = self.out.remove(at);
        let exchange = &mut self.all[place];
        exchange.answer = Some(Answer { step, left: Left::of(&exchange.request, response.flags, domain) });
        Ok(place)
    }

    /// What is wrong with the answer to this request, now that the step is over.
    fn wrong(&self, place: usize, domain: &Domain) -> Option<Wrong> {
        let Exchange { ring, request, answer, .. } = &self.all[place];
        let waits = domain.waiting(request.vcpu) == Some(WaitReason::Answer(*ring));
        if request.flags.contains(Flags::VCPU_PAUSED) && waits && !self.is_out(*ring, request.vcpu) {
            let flags = answer.as_ref().map_or(Flags::NONE, |answer| answer.left.flags);
            return Some(Wrong::LeavesWaiting(place, flags));
        }
        let dropped = request.flags.contains(Flags::DROP_PAGE);
        let frame = request.frame().filter(|_| *ring == Ring::Paging && !dropped)?;
        let still_out = self.out.iter().any(|other| self.all[*other].request.frame() == Some(frame));
        let missing = domain.p2m_type(frame).is_paging() && !domain.is_held(frame);
        (missing && !still_out).then_some(Wrong::NotLoaded(place))
    }

    fn is_out(&self, ring: Ring, vcpu: VcpuId) -> bool {
        self.out().any(|exchange| exchange.ring == ring && of_vcpu(&exchange.request) == Some(vcpu))
    }

    /// The request of a ring that was answered last.
    #[must_use]
    pub fn last_answered(&self, ring: Ring) -> Option<&Exchange> {
        let answered = self.all.iter().filter(|exchange| exchange.ring == ring);
        answered
            .max_by_key(|exchange| exchange.answer.as_ref().map(|answer| answer.step))
            .filter(|it| it.answer.is_some())
    }

    /// The requests without an answer, oldest first.
    pub fn out(&self) -> impl Iterator<Item = &Exchange> {
        self.out.iter().map(|place| &self.all[*place])
    }
}

/// The vCPU that a request is about; none of a device's.
#[must_use]
pub fn of_vcpu(request: &Request) -> Option<VcpuId> {
    (!request.flags.contains(Flags::FOREIGN)).then_some(request.vcpu)
}

/// Whether requests of a ring come of what a pager has evicted, which is its own matter.
#[must_use]
pub fn is_pagers(ring: Ring) -> bool {
    matches!(ring, Ring::Paging | Ring::Sharing)
}

impl Exchange {
    /// Whose request it is. A pager decides which frames are asked for, so there each frame has an order of its own.
    #[must_use]
    pub fn key(&self) -> Key {
        let vcpu = of_vcpu(&self.request);
        let frame = self.request.frame().filter(|_| is_pagers(self.ring) || vcpu.is_none());
        Key { ring: self.ring.index(), vcpu, frame }
    }

    /// Whether another run's request asks the same.
    #[must_use]
    pub fn asks_like(&self, other: &Exchange) -> bool {
        // What type a frame had is the pager's doing.
        is_pagers(self.ring) || self.request == other.request
    }
}

impl Left {
    fn of(request: &Request, flags: Flags, domain: &Domain) -> Left {
        let kept = EFFECTIVE.into_iter().filter(|flag| flags.contains(*flag));
        let violated = request.frame().filter(|_| request.event.reason() == Reason::Violation);
        Left {
            flags: kept.fold(Flags::NONE, Flags::union),
            access: violated.map(|gfn| domain.access_type(gfn)),
            monitors: (CpuEventKind::ALL.map(|kind| domain.monitored(kind)), domain.single_steps(request.vcpu)),
        }
    }
}
