//! The sequence of a run as its record tells it: requests with their answers and what was done in between, checkpoints with what was
//! done there, and what consumers did outside of answers.
//!
//! An event stands where its answer was taken, one for which nobody waits where it was asked, one without an answer at the end. A consumer
//! takes a request, acts, answers, and may have done so for the next one before the first answer is taken. So what a connection did to the
//! frame of a request that is out on its ring belongs to that request, with what it did just before to others; what names no such frame
//! belongs to the answer that it gives next. What was done while nothing was out, and a pager's nominations and evictions at any time,
//! stands by itself: whether it came before or after an event is chance. A note stands in place of what its connection did since its last
//! note for the same request, but for page-ins; one about a vCPU belongs to the request of that vCPU.

use super::connections::Connections;
use super::counts::Counts;
use super::doing::{Doing, subject_of_note};
use super::transcript::Record;
use mem_event::message::Call;
use mem_event::trace::remark::{Answer, Asked};
use mem_event::trace::{self, Remark, Remarked, Step};
use mem_event::{Control, Effect, Errno, Flags, Input, Outcome, Request, Response, Ring, VcpuId};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// A request that is out.
#[derive(Debug)]
struct Open {
    /// In the order in which they came.
    number: u64,
    /// Where it was asked.
    place: u64,
    ring: Ring,
    request: Request,
    /// The instruction, 0 where it is not known.
    rip: u64,
    /// When it was made, in nanoseconds.
    since: u64,
    /// What was done for it.
    done: Vec<Doing>,
    /// Whether its frame was among what that was done to.
    is_named: bool,
    /// What a note would stand in place of: from here on.
    unnamed: usize,
}

/// What a connection did for it is not told yet for whom.
#[derive(Debug, Default)]
struct Pending {
    done: Vec<Doing>,
    unnamed: usize,
    /// The request for which the connection did something last.
    last: Option<u64>,
}

/// A vCPU that stands at a checkpoint.
#[derive(Debug)]
struct Stop {
    vcpu: VcpuId,
    at: trace::remark::Point,
    arguments: [u64; 3],
}

/// A record of the sequence, and where it stands: records come as they are complete, and are in order of their places.
pub type Placed = (u64, Record);

/// Whether somebody stands until a request is answered. Nobody waits for a pager to forget a frame; and a device, or a foreign caller, that
/// found no memory tries again as soon as there is some, which the consumer sees to before it answers.
fn waits(ring: Ring, request: &Request) -> bool {
    let is_let_go = request.flags.contains(Flags::DROP_PAGE) || ring == Ring::Sharing;
    request.flags.contains(Flags::VCPU_PAUSED) || request.flags.contains(Flags::FOREIGN) && !is_let_go
}

/// The instruction that an input is about, by its linear address; 0 where it is not known.
#[must_use]
pub fn rip(input: &Input) -> u64 {
    match input {
        Input::Access { access, .. } | Input::AccessNosleep { access, .. } => access.rip,
        Input::CpuEvent { event, .. } => event.rip.0,
        _ => 0,
    }
}

/// Follows a record; what is complete comes out as records of the sequence.
#[derive(Debug, Default)]
pub struct Sequence {
    open: Vec<Open>,
    stops: Vec<Stop>,
    /// The connection that holds each ring.
    holders: [Option<u32>; 3],
    /// Requests of a ring whose consumer went, which a successor may be given again.
    lost: [bool; 3],
    /// What connections did for no request that can be told.
    pending: HashMap<u32, Pending>,
    /// The connections that hear of checkpoints.
    subscribers: HashSet<u32>,
    /// Whose connections are.
    connections: Connections,
    /// Requests and checkpoints so far.
    pub counts: Counts,
    /// Requests so far.
    number: u64,
    /// Steps and remarks so far.
    place: u64,
}

impl Sequence {
    /// What comes next in the record.
    pub fn take(&mut self, record: &trace::Record, out: &mut Vec<Placed>) {
        self.place += 1;
        match record {
            trace::Record::Step(step) => self.step(step, out),
            trace::Record::Remark(remarked) => self.remark(remarked, out),
        }
    }

    /// The record has ended: what is out has no answer.
    pub fn finish(&mut self, out: &mut Vec<Placed>) {
        for mut open in std::mem::take(&mut self.open) {
            let holder = self.holders[open.ring.index()];
            let pending = holder.and_then(|connection| self.pending.remove(&connection));
            open.done.extend(pending.unwrap_or_default().done);
            let place = if waits(open.ring, &open.request) { u64::MAX } else { open.place };
            let Open { ring, request, rip, since, done, .. } = open;
            out.push((place, Record::Event { ring, request, rip, since, done, answer: None }));
        }
    }

    fn step(&mut self, step: &Step, out: &mut Vec<Placed>) {
        if let Input::Control(control) = &step.input {
            self.control(control, step, out);
        }
        if let Input::ConsumerLost { ring } = step.input {
            (self.holders[ring.index()], self.lost[ring.index()]) = (None, true);
        }
        for effect in &step.effects.list {
            match effect {
                Effect::Requested { ring, request, .. } => self.requested(*ring, *request, rip(&step.input), step.time),
                Effect::Answered { ring, response, .. } => self.answered(*ring, *response, step.time, out),
                _ => {}
            }
        }
        if let Input::Control(Control::Enable { ring, .. }) = step.input {
            self.lost[ring.index()] = false;
        }
    }

    fn control(&mut self, control: &Control, step: &Step, out: &mut Vec<Placed>) {
        let refused = match step.outcome {
            Outcome::Refused(errno, _) | Outcome::Retry(errno) => Some(errno),
            Outcome::Crashed => Some(Errno::EINVAL),
            Outcome::Proceed | Outcome::Value(_) | Outcome::Wait(_) | Outcome::Skip | Outcome::Alone => None,
        };
        if let (Control::Enable { ring, .. }, None) = (control, refused) {
            self.holders[ring.index()] = Some(step.connection);
        }
        if step.connection != 0 {
            self.does(step.connection, Doing::Operation(control.clone(), refused), out);
        }
    }

    fn requested(&mut self, ring: Ring, request: Request, rip: u64, time: u64) {
        // A consumer's successor is given again what its predecessor has not answered.
        let again = |open: &Open| open.ring == ring && open.request == request;
        if self.lost[ring.index()] && self.open.iter().any(again) {
            return;
        }
        *self.counts.of_mut(ring) += 1;
        self.number += 1;
        let (number, place, done) = (self.number, self.place, Vec::new());
        self.open.push(Open { number, place, ring, request, rip, since: time, done, is_named: false, unnamed: 0 });
    }

    fn answered(&mut self, ring: Ring, response: Response, time: u64, out: &mut Vec<Placed>) {
        let of_ring = |open: &Open| open.ring == ring;
        let of_vcpu = |open: &Open| of_ring(open) && open.request.vcpu.0 == response.vcpu;
        let exact = |open: &Open| of_vcpu(open) && open.request.event.subject() == response.subject();
        let foreign =
            |open: &Open| open.request.flags.contains(Flags::FOREIGN) == response.flags.contains(Flags::FOREIGN);
        let open = &self.open;
        let at = open.iter().position(|it| exact(it) && foreign(it)).or_else(|| open.iter().position(exact));
        let Some(at) = at.or_else(|| open.iter().position(of_vcpu)).or_else(|| open.iter().position(of_ring)) else {
            return;
        };
        let Open { place: asked, request, rip, since, mut done, is_named, .. } = self.open.remove(at);
        if let Some(holder) = self.holders[ring.index()] {
            let others = self.open.iter().any(|open| self.holders[open.ring.index()] == Some(holder));
            // What names no frame is for another one, where this one's was named.
            if !(others && is_named) {
                done.extend(self.pending.remove(&holder).unwrap_or_default().done);
            }
        }
        let wait = Duration::from_nanos(time.saturating_sub(since));
        self.counts.waited(wait);
        let place = if waits(ring, &request) { self.place } else { asked };
        out.push((place, Record::Event { ring, request, rip, since, done, answer: Some((response, wait)) }));
    }

    fn remark(&mut self, remarked: &Remarked, out: &mut Vec<Placed>) {
        self.connections.heard(&remarked.remark);
        match &remarked.remark {
            Remark::Stopped { vcpu, at, arguments } => {
                self.counts.checkpoints += 1;
                self.stops.push(Stop { vcpu: *vcpu, at: *at, arguments: *arguments });
            }
            Remark::Released { vcpu, connection } => {
                let Some(at) = self.stops.iter().position(|stop| stop.vcpu == *vcpu) else { return };
                let Stop { vcpu, at, arguments } = self.stops.remove(at);
                let done = connection.and_then(|connection| self.pending.remove(&connection)).unwrap_or_default().done;
                out.push((self.place, Record::Checkpoint { vcpu, at, arguments, done }));
            }
            Remark::Called { connection, call, reply } => self.called(*connection, call, reply, out),
            Remark::Note { connection, text } => self.noted(*connection, text, out),
            Remark::Came { .. }
            | Remark::Went { .. }
            | Remark::Content { .. }
            | Remark::HandedOver { .. }
            | Remark::Ordered { .. }
            | Remark::Registers { .. } => {}
        }
    }

    fn called(&mut self, connection: u32, call: &Asked, reply: &Answer, out: &mut Vec<Placed>) {
        let refused = if let Answer::Refused(errno, _) = reply { Some(*errno) } else { None };
        let doing = match call.call() {
            Some(Call::WriteFrame { gfn, offset, .. }) => {
                Doing::Write { gfn, offset, length: call.payload.length, refused }
            }
            Some(Call::Subscribe) => {
                self.subscribers.insert(connection);
                return;
            }
            Some(Call::Control(control)) => Doing::Operation(control, refused),
            Some(Call::ReadFrame { gfn, .. }) => Doing::Read(gfn),
            _ => return,
        };
        self.does(connection, doing, out);
    }

    /// Whether a connection does what it does for somebody: for requests on its rings, or for a vCPU at a checkpoint.
    fn is_at_work(&self, connection: u32) -> bool {
        let holds = |ring: Ring| self.holders[ring.index()] == Some(connection);
        let stops = self.subscribers.contains(&connection) && !self.stops.is_empty();
        stops || self.open.iter().any(|open| holds(open.ring))
    }

    fn does(&mut self, connection: u32, doing: Doing, out: &mut Vec<Placed>) {
        if doing.is_beside() || !self.is_at_work(connection) {
            return self.stands_by_itself(connection, doing, out);
        }
        let pending = self.pending.entry(connection).or_default();
        let holders = &self.holders;
        let of_frame = |open: &Open| {
            holders[open.ring.index()] == Some(connection)
                && doing.frame().is_some_and(|gfn| open.request.frame() == Some(gfn))
        };
        // Of several about the same frame the oldest for which this was not done yet.
        let open = &mut self.open;
        let at = open.iter().position(|it| of_frame(it) && !it.done.contains(&doing));
        let Some(open) = at.or_else(|| open.iter().position(of_frame)).and_then(|at| open.get_mut(at)) else {
            pending.last = None;
            if doing.is_shown() {
                pending.done.push(doing);
            }
            return;
        };
        let is_load = doing.loaded().is_some();
        if !is_load {
            pending.last = Some(open.number);
        }
        if doing.is_shown() {
            if !is_load {
                open.done.append(&mut pending.done);
                pending.unnamed = 0;
            }
            open.done.push(doing);
            open.is_named = true;
        }
    }

    fn stands_by_itself(&mut self, connection: u32, doing: Doing, out: &mut Vec<Placed>) {
        if doing.is_shown() {
            out.push((self.place, Record::Act { connection, who: self.who(connection), doing, count: 1 }));
        }
    }

    /// A connection by the rings that it holds; else by its name.
    fn who(&self, connection: u32) -> String {
        let holds = Ring::ALL.into_iter().filter(|ring| self.holders[ring.index()] == Some(connection));
        let rings: Vec<&str> = holds.map(Ring::name).collect();
        if rings.is_empty() { self.connections.name(connection) } else { format!("consumer of {}", rings.join(", ")) }
    }

    fn noted(&mut self, connection: u32, text: &str, out: &mut Vec<Placed>) {
        let (vcpu, text) = subject_of_note(text);
        let note = Doing::Note(text.to_owned());
        if !self.is_at_work(connection) {
            return self.stands_by_itself(connection, note, out);
        }
        let pending = self.pending.entry(connection).or_default();
        let holders = &self.holders;
        let of_vcpu = |open: &Open| holders[open.ring.index()] == Some(connection) && Some(open.request.vcpu) == vcpu;
        if let Some(open) = self.open.iter_mut().find(|open| of_vcpu(open)) {
            pending.done.truncate(pending.unnamed);
            open.replace(note);
            open.is_named = true;
            return;
        }
        let open = pending.last.and_then(|number| self.open.iter_mut().find(|open| open.number == number));
        match open {
            Some(open) => open.replace(note),
            None => stand_in(note, &mut pending.done, &mut pending.unnamed),
        }
    }
}

impl Open {
    fn replace(&mut self, note: Doing) {
        stand_in(note, &mut self.done, &mut self.unnamed);
    }
}

/// Has a note stand in place of what was done behind the last one, but for page-ins.
fn stand_in(note: Doing, done: &mut Vec<Doing>, unnamed: &mut usize) {
    let named = done.split_off((*unnamed).min(done.len()));
    done.extend(named.into_iter().filter(|doing| doing.loaded().is_some()));
    done.push(note);
    *unnamed = done.len();
}
