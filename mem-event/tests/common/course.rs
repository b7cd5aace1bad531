//! A policy at work without a machine: vCPUs and foreign callers with programs of events, a consumer that answers, and at each step one
//! choice of who goes on. The choices are all that the sources leave to the scheduler, so to try them all is to know what a policy can
//! come to, and a seed is a schedule.
//!
//! A vCPU's claim, its pause and its put are steps of their own: between them others run, as on other processors.

use mem_event::VcpuId;
use mem_event::flow::{Busy, Flow, FlowKind, Place, Put, Stops, Try};
use std::collections::VecDeque;

/// What a vCPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// An event that pauses it, of an instruction that faults: it is made anew where it was given up.
    Fault,
    /// An event that does not pause it, of an instruction that is over: it is made once.
    Report,
    /// No memory for a shared frame. Before the patch the vCPU is paused before the claim, by the patch after the put.
    Share,
    /// It gives a paged frame back, and the pager is told.
    Balloon,
}

/// One choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// A vCPU does its next statement.
    Run(u32),
    /// A foreign caller does.
    Foreign(u32),
    /// The toolstack gives a paged frame back, and the pager is told.
    Drop,
    /// The consumer answers the request that has been out for so many others' time; 0 is the oldest.
    Answer(u32),
}

/// What a step came to, as far as it is worth a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Said {
    /// A request went onto the ring.
    pub put: bool,
    /// An event was given up and is not made again; `printed`: with a line on the console.
    pub lost: bool,
    /// See `lost`.
    pub printed: bool,
    /// A foreign caller was told to come back.
    pub refused: bool,
    /// A vCPU that was woken sleeps again.
    pub in_vain: bool,
    /// A vCPU sleeps inside its put.
    pub in_put: bool,
    /// A vCPU was stopped to throttle it.
    pub blocked: bool,
    /// A slot went to a newcomer while others slept that wanted one.
    pub overtook: bool,
    /// The newcomer was foreign.
    pub foreign: bool,
    /// A request was written through a stale pointer.
    pub fault: bool,
}

/// Where a vCPU is in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// Before its claim.
    Claim,
    /// It slept at a claim, or sleeps.
    Slept(Place),
    /// It holds a slot, and is to be paused.
    Pause,
    /// It is to put.
    Put,
    /// It slept in its put, or sleeps.
    InPut,
    /// It has put, and is to be paused (v5, in sharing).
    PauseLate,
    /// It has nothing to do but to run again.
    Next,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    act: usize,
    at: At,
}

/// A request that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Request {
    /// Whom its answer unpauses.
    pauses: Option<VcpuId>,
}

/// Everything that is so at a moment; two that are equal go on alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Course {
    /// The policy.
    pub flow: Flow,
    /// What stops the vCPUs.
    pub stops: Stops,
    slots: u32,
    out: VecDeque<Request>,
    vcpus: Vec<Worker>,
    /// Events that foreign callers still have to make, and whether they hold a slot.
    foreign: Vec<(u32, bool)>,
    drops: u32,
}

/// What all take part with.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Slots of the ring.
    pub slots: u32,
    /// What each vCPU does.
    pub vcpus: Vec<Vec<Act>>,
    /// They begin anew when they are through.
    pub endless: bool,
    /// How many events each foreign caller makes.
    pub foreign: Vec<u32>,
    /// How many frames the toolstack gives back.
    pub drops: u32,
    /// Answers come in any order, not the oldest request's first.
    pub any_order: bool,
    /// An answer takes no pause count below 0, as from Xen 4.5 on.
    pub floor: bool,
}

impl Cast {
    /// So many vCPUs that do this, on so many slots.
    #[must_use]
    pub fn of(slots: u32, vcpus: u32, program: &[Act]) -> Cast {
        let vcpus = vec![program.to_vec(); vcpus as usize];
        Cast { slots, vcpus, endless: false, foreign: Vec::new(), drops: 0, any_order: false, floor: false }
    }
}

impl Course {
    /// The beginning: the ring is enabled, and nobody has done anything.
    #[must_use]
    pub fn new(mut flow: Flow, cast: &Cast) -> Course {
        let count = u32::try_from(cast.vcpus.len()).unwrap_or(u32::MAX);
        let mut stops = if cast.floor { Stops::with_floor(count) } else { Stops::new(count) };
        flow.enable(cast.slots, &mut stops);
        let vcpus = vec![Worker { act: 0, at: At::Claim }; cast.vcpus.len()];
        let foreign = cast.foreign.iter().map(|events| (*events, false)).collect();
        Course { flow, stops, slots: cast.slots, out: VecDeque::new(), vcpus, foreign, drops: cast.drops }
    }

    /// `RING_FREE_REQUESTS`.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.slots - u32::try_from(self.out.len()).unwrap_or(u32::MAX)
    }

    /// Whether this vCPU is through, and runs.
    #[must_use]
    pub fn is_through(&self, vcpu: u32, cast: &Cast) -> bool {
        self.is_at_end(vcpu as usize, cast) && self.stops.runs(VcpuId(vcpu))
    }

    /// Whether all are through, and nothing is out.
    #[must_use]
    pub fn is_over(&self, cast: &Cast) -> bool {
        let vcpus = (0..self.stops.len()).all(|vcpu| self.is_through(vcpu, cast));
        vcpus && self.out.is_empty() && self.drops == 0 && self.foreign.iter().all(|(left, _)| *left == 0)
    }

    fn is_at_end(&self, vcpu: usize, cast: &Cast) -> bool {
        self.vcpus[vcpu].at == At::Claim && self.vcpus[vcpu].act >= cast.vcpus[vcpu].len()
    }

    /// Whether a vCPU sleeps for want of room, or was woken and has not got it yet.
    #[must_use]
    pub fn wants_room(&self, vcpu: u32) -> bool {
        match self.vcpus[vcpu as usize].at {
            // Its slot is reserved when it is woken.
            At::Slept(Place::Line) => !self.stops.runs(VcpuId(vcpu)),
            At::Slept(_) | At::InPut => true,
            _ => false,
        }
    }

    /// Whether a vCPU can do its next statement: it runs, or is in the middle of the hypervisor, where a pause that it was given meanwhile does
    /// not hold it yet.
    fn goes_on(&self, vcpu: u32) -> bool {
        let inside = matches!(self.vcpus[vcpu as usize].at, At::Pause | At::Put | At::PauseLate);
        inside || self.stops.runs(VcpuId(vcpu))
    }

    /// All that may happen next. None, and not [`Course::is_over`]: everybody that is left sleeps for ever.
    #[must_use]
    pub fn choices(&self, cast: &Cast) -> Vec<Choice> {
        let runs = |vcpu: &u32| self.goes_on(*vcpu) && !self.is_at_end(*vcpu as usize, cast);
        let mut all: Vec<Choice> = (0..self.stops.len()).filter(runs).map(Choice::Run).collect();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let callers = (0..count(self.foreign.len())).filter(|caller| self.foreign[*caller as usize].0 > 0);
        all.extend(callers.map(Choice::Foreign));
        if self.drops > 0 {
            all.push(Choice::Drop);
        }
        let most = if cast.any_order { count(self.out.len()) } else { count(self.out.len()).min(1) };
        all.extend((0..most).map(Choice::Answer));
        all
    }

    /// One step.
    pub fn take(&mut self, choice: Choice, cast: &Cast) -> Said {
        let said = match choice {
            Choice::Run(vcpu) => self.run(vcpu, cast),
            Choice::Foreign(caller) => self.call(caller as usize),
            Choice::Drop => self.drop_page(),
            Choice::Answer(at) => {
                self.answer(at as usize);
                Said::default()
            }
        };
        // Who is woken stands in the vCPUs' stops; in which order they run is a choice.
        self.stops.woken.clear();
        said
    }

    /// The ring ends, if the policy lets it.
    ///
    /// # Errors
    /// vCPUs wait.
    pub fn disable(&mut self) -> Result<(), Busy> {
        self.flow.disable(&mut self.stops)
    }

    fn run(&mut self, vcpu: u32, cast: &Cast) -> Said {
        let (at, id) = (vcpu as usize, VcpuId(vcpu));
        let program = &cast.vcpus[at];
        let act = program[self.vcpus[at].act % program.len()];
        match self.vcpus[at].at {
            At::Claim if act == Act::Share && self.flow.kind() == FlowKind::CheckRing && self.stops.runs(id) => {
                // "Pause first": the claim that follows is the same function's.
                self.stops.pause(id);
                self.claim(id, act, None, cast)
            }
            At::Claim => self.claim(id, act, None, cast),
            At::Slept(place) => self.claim(id, act, Some(place), cast),
            At::Pause => {
                self.stops.pause(id);
                // It is stopped when it leaves the hypervisor, and it has not left yet: the put follows at once.
                self.put(id, act, cast)
            }
            At::Put | At::InPut => self.put(id, act, cast),
            At::PauseLate => {
                self.stops.pause(id);
                self.vcpus[at].at = At::Next;
                Said::default()
            }
            At::Next => {
                self.next(at, cast);
                Said::default()
            }
        }
    }

    fn next(&mut self, at: usize, cast: &Cast) {
        let worker = &mut self.vcpus[at];
        worker.at = At::Claim;
        worker.act += 1;
        if cast.endless {
            worker.act %= cast.vcpus[at].len();
        }
    }

    fn claim(&mut self, vcpu: VcpuId, act: Act, slept: Option<Place>, cast: &Cast) -> Said {
        let at = vcpu.0 as usize;
        let free = self.free();
        let tried = match (act, slept) {
            (Act::Balloon, None) => self.flow.claim_drop(Some(vcpu), free, &mut self.stops),
            (_, None) => self.flow.claim(vcpu, free, &mut self.stops),
            (_, Some(place)) => self.flow.claim_again(vcpu, place, free, &mut self.stops),
        };
        let mut said = Said::default();
        match tried {
            Try::Slot => {
                said.overtook = slept.is_none() && self.others_want_room(vcpu);
                let late = act == Act::Share && self.flow.kind() == FlowKind::WaitQueueV5;
                let early = act == Act::Share && self.flow.kind() == FlowKind::CheckRing;
                let pauses = matches!(act, Act::Fault | Act::Share) && !late && !early;
                self.vcpus[at].at = if pauses { At::Pause } else { At::Put };
                if early {
                    said = Said { overtook: said.overtook, ..self.put(vcpu, act, cast) };
                }
            }
            Try::Asleep(Place::Flag) if act != Act::Fault => {
                said.lost = true;
                said.in_vain = slept.is_some();
                self.vcpus[at].at = At::Next;
            }
            Try::Asleep(place) => {
                said.in_vain = slept.is_some();
                self.vcpus[at].at = At::Slept(place);
            }
            Try::Refused | Try::NoRing => self.vcpus[at].at = At::Next,
        }
        said
    }

    fn others_want_room(&self, but: VcpuId) -> bool {
        (0..self.stops.len()).any(|vcpu| vcpu != but.0 && self.wants_room(vcpu))
    }

    fn put(&mut self, vcpu: VcpuId, act: Act, cast: &Cast) -> Said {
        let at = vcpu.0 as usize;
        let paused = matches!(act, Act::Fault | Act::Share);
        let again = self.vcpus[at].at == At::InPut;
        let free = self.free();
        let mut said = Said::default();
        match self.flow.put(vcpu, paused, free, &mut self.stops) {
            Put::Done { blocked } => {
                self.out.push_back(Request { pauses: paused.then_some(vcpu) });
                (said.put, said.blocked) = (true, blocked);
                let late = act == Act::Share && self.flow.kind() == FlowKind::WaitQueueV5;
                self.vcpus[at].at = if late { At::PauseLate } else { At::Next };
                if !paused && !blocked {
                    self.next(at, cast);
                }
            }
            Put::Asleep => {
                (said.in_put, said.in_vain) = (true, again);
                self.vcpus[at].at = At::InPut;
            }
            Put::Lost => (said.lost, said.printed) = (true, true),
            Put::Fault => said.fault = true,
        }
        said
    }

    fn call(&mut self, caller: usize) -> Said {
        let free = self.free();
        let mut said = Said { foreign: true, ..Said::default() };
        if !self.foreign[caller].1 {
            match self.flow.claim_foreign(free) {
                Try::Slot => {
                    said.overtook = (0..self.stops.len()).any(|vcpu| self.wants_room(vcpu));
                    self.foreign[caller].1 = true;
                }
                _ => said.refused = true,
            }
            return said;
        }
        self.foreign[caller] = (self.foreign[caller].0 - 1, false);
        self.put_foreign(&mut said);
        said
    }

    fn put_foreign(&mut self, said: &mut Said) {
        let free = self.free();
        match self.flow.put_foreign(free, &mut self.stops) {
            Put::Done { .. } => {
                self.out.push_back(Request { pauses: None });
                said.put = true;
            }
            Put::Lost | Put::Asleep => (said.lost, said.printed) = (true, true),
            Put::Fault => said.fault = true,
        }
    }

    fn drop_page(&mut self) -> Said {
        self.drops -= 1;
        let free = self.free();
        let mut said = Said { foreign: true, ..Said::default() };
        match self.flow.claim_drop(None, free, &mut self.stops) {
            Try::Slot => self.put_foreign(&mut said),
            // This engine refuses the operation; the others forget the notice.
            _ if self.flow.kind() == FlowKind::Queue => said.refused = true,
            _ => said.lost = true,
        }
        said
    }

    fn answer(&mut self, at: usize) {
        let Some(request) = self.out.remove(at) else { return };
        let free = self.free();
        self.flow.taken(free, &mut self.stops);
        if let Some(vcpu) = request.pauses {
            self.stops.answer(vcpu);
        }
        self.flow.answered(free, &mut self.stops);
    }

    /// Whom the answer of the oldest request would unpause.
    #[must_use]
    pub fn oldest(&self) -> Option<Option<VcpuId>> {
        self.out.front().map(|request| request.pauses)
    }
}
