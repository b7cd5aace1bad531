//! A domain with its consumers' halves of the rings: what every engine test starts from.
#![allow(dead_code, clippy::unwrap_used, reason = "test code, of which each file uses a part")]

pub mod course;

use mem_event::{
    Access, AccessSource, AccessType, Back, Control, CpuEvent, CpuEventKind, Domain, DomainConfig, Effect, Effects,
    Errno, Flags, Gfn, Gla, Input, Layout, MonitorMode, Outcome, Request, Response, Rights, Ring, RingPage, VcpuId,
    WaitReason, With,
};

pub const R: Rights = Rights::R;
pub const W: Rights = Rights::W;
pub const X: Rights = Rights::X;

/// Frames of RAM in a test's domain, from 0.
pub const FRAMES: u64 = 32;

pub struct Bench {
    pub domain: Domain,
    pub backs: [Option<Back>; 3],
    /// What the last step brought about.
    pub effects: Effects,
}

pub fn config(vcpus: u32) -> DomainConfig {
    DomainConfig::new(vcpus, vec![(Gfn(0), FRAMES)])
}

pub fn touch(gfn: u64, rights: Rights) -> Access {
    let gla = Some(Gla(0xffff_8000_0000_0123_u64.wrapping_add(gfn << 12)));
    Access { gfn: Gfn(gfn), offset: 0x123, gla, rights, source: AccessSource::Instruction, rip: 0x40_1000 }
}

/// A vCPU writes to CR3.
pub fn write_of_cr3(vcpu: u32, value: u64) -> Input {
    let event = CpuEvent { kind: CpuEventKind::Cr3, value, old: 0, number: 0, rip: Gla(0), gfn: Gfn(0) };
    Input::CpuEvent { vcpu: VcpuId(vcpu), event }
}

impl Bench {
    pub fn new(vcpus: u32) -> Bench {
        Bench::with(config(vcpus))
    }

    pub fn with(config: DomainConfig) -> Bench {
        let domain = Domain::new(config).unwrap();
        Bench { domain, backs: [None, None, None], effects: Effects::default() }
    }

    pub fn step(&mut self, input: &Input) -> Outcome {
        self.step_with(input, With::NOTHING)
    }

    pub fn step_with(&mut self, input: &Input, with: With<'_>) -> Outcome {
        self.effects.clear();
        let outcome = self.domain.apply(input, with, &mut self.effects);
        self.domain.check_invariants().unwrap();
        outcome
    }

    pub fn enable(&mut self, ring: Ring, slots: u32) {
        assert_eq!(self.try_enable(ring, Layout::Flags32, slots), Outcome::Proceed);
    }

    pub fn try_enable(&mut self, ring: Ring, layout: Layout, slots: u32) -> Outcome {
        let page = RingPage::heap();
        let back = Back::init(page.clone(), ring, layout, slots).ok();
        let outcome = self.step_with(&Input::Control(Control::Enable { ring, layout, slots }), With::page(&page));
        if outcome == Outcome::Proceed {
            self.backs[ring.index()] = back;
        }
        outcome
    }

    pub fn control(&mut self, control: Control) -> Outcome {
        self.step(&Input::Control(control))
    }

    /// An operation that must succeed.
    pub fn must(&mut self, control: Control) {
        let outcome = self.control(control.clone());
        assert_eq!(outcome, Outcome::Proceed, "{control:?}");
    }

    /// An operation that must be refused and leave everything as it is.
    pub fn refused(&mut self, control: Control) -> Errno {
        let before = self.domain.state();
        match self.control(control.clone()) {
            Outcome::Refused(errno, sentence) => {
                assert!(!sentence.is_empty());
                assert_eq!(self.domain.state(), before, "{control:?} was refused and changed something");
                assert_eq!(self.effects, Effects::default(), "{control:?} was refused and had effects");
                errno
            }
            other => panic!("{control:?} is not refused: {other:?}"),
        }
    }

    pub fn access(&mut self, vcpu: u32, gfn: u64, rights: Rights) -> Outcome {
        self.step(&Input::Access { vcpu: VcpuId(vcpu), access: touch(gfn, rights) })
    }

    pub fn foreign(&mut self, gfn: u64, rights: Rights) -> Outcome {
        self.step(&Input::Foreign { access: touch(gfn, rights) })
    }

    pub fn watch(&mut self, gfn: u64, access: AccessType) {
        self.must(Control::SetAccess { first: Gfn(gfn), count: 1, access });
    }

    /// Writes to CR3 are reported so.
    pub fn monitor_cr3(&mut self, mode: MonitorMode) {
        self.must(Control::Monitor { kind: CpuEventKind::Cr3, mode, on_change_only: false });
    }

    /// Nominates and evicts a frame.
    pub fn page_out(&mut self, gfn: u64) {
        self.must(Control::Nominate { gfn: Gfn(gfn) });
        self.must(Control::Evict { gfn: Gfn(gfn) });
    }

    pub fn prep(&mut self, gfn: u64) -> Outcome {
        self.control(Control::Prep { gfn: Gfn(gfn), buffer: true })
    }

    pub fn back(&mut self, ring: Ring) -> &mut Back {
        self.backs[ring.index()].as_mut().expect("the ring is enabled")
    }

    /// The requests that wait for this ring's consumer.
    pub fn requests(&mut self, ring: Ring) -> Vec<Request> {
        let back = self.back(ring);
        std::iter::from_fn(|| back.take().unwrap()).collect()
    }

    /// The one request that waits.
    pub fn request(&mut self, ring: Ring) -> Request {
        let requests = self.requests(ring);
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0]
    }

    /// Writes a response without signalling it.
    pub fn post(&mut self, ring: Ring, response: &Response) {
        self.back(ring).answer(response);
    }

    pub fn kick(&mut self, ring: Ring) {
        assert_eq!(self.step(&Input::Kick { ring }), Outcome::Proceed);
    }

    /// Answers with this response and signals.
    pub fn respond(&mut self, ring: Ring, response: &Response) {
        self.post(ring, response);
        self.kick(ring);
    }

    /// Answers a request as honest consumers do.
    pub fn answer(&mut self, ring: Ring, request: &Request) {
        self.respond(ring, &request.answer());
    }

    pub fn waiting(&self, vcpu: u32) -> Option<WaitReason> {
        self.domain.waiting(VcpuId(vcpu))
    }

    /// The vCPUs that the last step woke, in order.
    pub fn woken(&self) -> Vec<u32> {
        let wakes = self.effects.list.iter();
        wakes.filter_map(|effect| if let Effect::Wake(vcpu) = effect { Some(vcpu.0) } else { None }).collect()
    }

    pub fn has(&self, effect: &Effect) -> bool {
        self.effects.list.contains(effect)
    }

    /// The requests that the last step put.
    pub fn put(&self) -> Vec<Request> {
        let effects = self.effects.list.iter();
        effects
            .filter_map(|it| if let Effect::Requested { request, .. } = it { Some(*request) } else { None })
            .collect()
    }
}

pub fn answer_due(ring: Ring) -> Outcome {
    Outcome::Wait(WaitReason::Answer(ring))
}

pub fn slot_due(ring: Ring) -> Outcome {
    Outcome::Wait(WaitReason::Slot(ring))
}

pub fn consumer_due(ring: Ring) -> Outcome {
    Outcome::Wait(WaitReason::Consumer(ring))
}

pub fn flags(list: &[Flags]) -> Flags {
    list.iter().fold(Flags::NONE, |sum, flag| sum.union(*flag))
}
