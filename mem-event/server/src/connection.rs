//! One connection to the control socket: a toolstack, a consumer, or both.

use crate::answer::{self, outcome, read_frame, refused, write_frame};
use crate::chaos::{self, Refusable};
use crate::event_channel::EventChannel;
use crate::hypercalls::Hypercalls;
use crate::kept::Kept;
use crate::linear;
use crate::packet::{receive, send};
use crate::pauses::Pauses;
use crate::peer::Peer;
use crate::pins::{MOST as MOST_PINS, Pins};
use mem_event::message::{Call, DeviceReport, LARGEST, MonitorReport, Reply, RingReport, VERSION, VcpuReport};
use mem_event::trace::Remark;
use mem_event::{Control, Errno, Outcome, Ring};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls served before the others get their turn, unless it takes longer.
const TURN: usize = 32;
/// How long a turn may take, but for its last call: rights of a whole domain are changed in some milliseconds.
const TURN_TIME: Duration = Duration::from_millis(1);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: Arc<OwnedFd>,
    /// Its number in the trace.
    number: u32,
    peer: Peer,
    greeted: bool,
    alive: bool,
    /// The rings that this client enabled.
    rings: Vec<Arc<EventChannel>>,
    /// Those of them that it had signalled when the calls began to be served.
    signalled: Vec<Ring>,
    /// The foreign mappings of this client.
    pins: Pins,
    pauses: Pauses,
}

impl Connection {
    /// A new connection.
    pub fn new(domain: &mut impl Hypercalls, socket: OwnedFd, number: u32, peer: Peer) -> Connection {
        domain.remark(|| Remark::Came {
            connection: number,
            process: peer.number(),
            user: peer.user(),
            program: peer.program(),
        });
        Connection {
            socket: Arc::new(socket),
            number,
            peer,
            greeted: false,
            alive: true,
            rings: Vec::new(),
            signalled: Vec::new(),
            pins: Pins::default(),
            pauses: Pauses::default(),
        }
    }

    /// The process that made it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The rings that it enabled.
    #[must_use]
    pub fn channels(&self) -> &[Arc<EventChannel>] {
        &self.rings
    }

    /// Whether the connection stands.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// The connection ended: its rings have lost their consumer, its mappings are gone. Always false, for `retain`.
    pub fn part(&mut self, domain: &mut impl Hypercalls, kept: &mut Kept) -> bool {
        // Before its ring is without a consumer: then what stands at its breakpoints may go on.
        kept.breakpoints.end(domain, self.number);
        domain.remark(|| Remark::Went { connection: self.number });
        domain.ends_record_of(self.number);
        domain.unsubscribe(&self.socket);
        while let Some(gfn) = self.pins.any() {
            self.pins.unpin(domain, self.number, gfn);
        }
        for channel in self.rings.drain(..) {
            domain.consumer_lost(&channel);
        }
        self.pauses.end(domain);
        false
    }

    /// Serves the calls that wait, then its rings that were signalled.
    pub fn serve(&mut self, domain: &mut impl Hypercalls, kept: &mut Kept) {
        // Before the calls: a call that was sent before a signal is among those that are served then. A call may end a ring, or begin
        // one.
        // What is answered after a call is not taken with it, but when it is signalled.
        let signalled = |channel: &Arc<EventChannel>| (Arc::clone(channel), channel.clear(), channel.is_pending());
        let rings: Vec<_> = self.rings.iter().map(signalled).collect();
        let are_signalled = rings.iter().filter(|(_, signalled, _)| *signalled);
        self.signalled = are_signalled.map(|(channel, ..)| channel.ring).collect();
        let all = self.serve_calls(domain, kept);
        for (channel, signalled, is_pending) in rings {
            // What it left unsignalled when it ended is taken with its end, so that the trace tells.
            let is_left = !self.alive && !channel.pollers.is_polled();
            if all && (signalled || (is_pending && !is_left)) {
                domain.take_responses(&channel);
            } else if signalled {
                // The rest has its turn when the others had theirs.
                channel.notify_service();
            }
        }
    }

    /// Whether all that wait were served.
    fn serve_calls(&mut self, domain: &mut impl Hypercalls, kept: &mut Kept) -> bool {
        let mut packet = vec![0; LARGEST + 1];
        let begun = Instant::now();
        for served in 0..TURN {
            if served > 0 && begun.elapsed() > TURN_TIME {
                return false;
            }
            match receive(&self.socket, &mut packet) {
                Ok((0, _)) => self.alive = false,
                Ok((length, file)) => self.serve_call(domain, kept, (&packet[..length.min(packet.len())], file)),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
                // It ended with replies unread. What it asked for before is still there, and counts.
                Err(rustix::io::Errno::CONNRESET) => {}
                Err(_) => self.alive = false,
            }
            if !self.alive {
                return true;
            }
        }
        false
    }

    fn serve_call(&mut self, domain: &mut impl Hypercalls, kept: &mut Kept, (packet, file): (&[u8], Option<OwnedFd>)) {
        for channel in &self.rings {
            // Calls that were handed over come before those that were sent after them, and so do responses, however late they
            // are taken: in Xen a consumer's notification has had them taken.
            domain.take_calls(channel);
            if channel.end_lateness() {
                domain.take_responses(channel);
            }
        }
        match Call::decode(packet) {
            Ok((sequence, operation, call))
                if self.greeted
                    && matches!(call, Call::SetPageFile | Call::PageFile | Call::Record | Call::Memory { .. }) =>
            {
                self.answer_about_file((domain, kept), (sequence, operation, call), file);
            }
            Ok((sequence, operation, call)) => match self.fault(domain, &call) {
                Some(reply) => self.send(&reply.encode(sequence, operation), &[]),
                None => self.answer((domain, kept), sequence, operation, call),
            },
            Err(malformed) => {
                // Nothing in such a packet can be trusted to say what it answers.
                self.send(&Reply::Refused(Errno::EINVAL, malformed.to_string()).encode(0, 0), &[]);
                self.alive = false;
            }
        }
    }

    /// The refusal that is made of a consumer's call, if one is. A toolstack without a ring of its own gets none.
    fn fault(&self, domain: &mut impl Hypercalls, call: &Call) -> Option<Reply> {
        let refusable = Refusable::of(call).filter(|_| !self.rings.is_empty())?;
        let reply = refused(domain.chaos().call(refusable)?, chaos::SENTENCE);
        domain.called(self.number, call, &reply);
        Some(reply)
    }

    fn answer(&mut self, (domain, kept): (&mut impl Hypercalls, &mut Kept), sequence: u32, operation: u16, call: Call) {
        let (reply, descriptors) = match call {
            Call::Hello { version } => (self.hello(version), None),
            _ if !self.greeted => (refused(Errno::EINVAL, "the first call is Hello"), None),
            Call::Control(Control::Enable { ring, layout, slots }) => {
                match domain.enable(Control::Enable { ring, layout, slots }, ring, (self.number, self.peer.number())) {
                    Ok(made) => (Reply::Done([0; 5]), Some(made)),
                    Err((errno, sentence)) => (Reply::Refused(errno, sentence), None),
                }
            }
            Call::Release { vcpu } => match domain.at_checkpoint(vcpu) {
                Ok(()) => {
                    domain.remark(|| Remark::Released { vcpu, connection: Some(self.number) });
                    // The reply first: what the vCPU does next may end this process.
                    self.send(&Reply::Done([0; 5]).encode(sequence, operation), &[]);
                    return domain.release(vcpu);
                }
                Err((errno, sentence)) => {
                    let reply = Reply::Refused(errno, sentence);
                    (self.refused(domain, &Call::Release { vcpu }, reply), None)
                }
            },
            Call::Control(_)
            | Call::Load { .. }
            | Call::Note { .. }
            | Call::HandOver { .. }
            | Call::Ordered { .. }
            | Call::EndTrace => (self.plain((domain, kept), call), None),
            unseen => {
                let reply = self.plain((domain, kept), unseen.clone());
                domain.called(self.number, &unseen, &reply);
                (reply, None)
            }
        };
        let packet = reply.encode(sequence, operation);
        match descriptors {
            None => self.send(&packet, &[]),
            Some((channel, [page, to_consumer, to_engine])) => {
                self.send(&packet, &[page.as_fd(), to_consumer.as_fd(), to_engine.as_fd()]);
                self.rings.retain(|other| other.ring != channel.ring);
                self.rings.push(channel);
            }
        }
    }

    /// The pager hands its page file over, or its successor asks for it.
    fn answer_about_file(
        &mut self,
        (domain, kept): (&mut impl Hypercalls, &mut Kept),
        (sequence, operation, call): (u32, u16, Call),
        given: Option<OwnedFd>,
    ) {
        if call == Call::Record {
            let recorded = given.map(|file| domain.record_for(self.number, file));
            let reply = match recorded {
                Some(Ok(())) => Reply::Done([0; 5]),
                Some(Err(error)) => refused(Errno::EINVAL, &format!("the record cannot be written: {error}")),
                None => refused(Errno::EINVAL, "no descriptor came with the call"),
            };
            return self.send(&reply.encode(sequence, operation), &[]);
        }
        if let Call::Memory { beyond } = call {
            let memory = domain.memory(beyond);
            let (reply, files) = match &memory {
                Ok(file) => (Reply::Done([0; 5]), vec![file.as_fd()]),
                Err((errno, sentence)) => (refused(*errno, sentence), Vec::new()),
            };
            domain.called(self.number, &call, &reply);
            return self.send(&reply.encode(sequence, operation), &files);
        }
        if !self.rings.iter().any(|channel| channel.ring == Ring::Paging) {
            let reply = refused(Errno::EPERM, "the page file is for the client that enabled the paging ring");
            domain.called(self.number, &call, &reply);
            return self.send(&reply.encode(sequence, operation), &[]);
        }
        if call == Call::PageFile {
            let file = kept.page_file.kept();
            let reply = Reply::Done([u64::from(file.is_some()), 0, 0, 0, 0]);
            domain.called(self.number, &call, &reply);
            return self.send(&reply.encode(sequence, operation), file.as_slice());
        }
        let reply = match given.map(|file| kept.page_file.keep(file)) {
            Some(Ok(())) => Reply::Done([0; 5]),
            Some(Err(sentence)) => refused(Errno::EINVAL, &sentence),
            None => refused(Errno::EINVAL, "no descriptor came with the call"),
        };
        domain.called(self.number, &call, &reply);
        self.send(&reply.encode(sequence, operation), &[]);
    }

    fn hello(&mut self, version: u64) -> Reply {
        if version != VERSION {
            return refused(
                Errno::EINVAL,
                &format!("this plugin speaks version {VERSION} of the protocol, not {version}"),
            );
        }
        self.greeted = true;
        Reply::Done([VERSION, u64::from(self.number), 0, 0, 0])
    }

    fn plain(&mut self, (domain, kept): (&mut impl Hypercalls, &mut Kept), call: Call) -> Reply {
        match call {
            Call::Info => Reply::Done(domain.info().values()),
            Call::Vcpus { first } => {
                Reply::Bytes(domain.vcpus(first).into_iter().flat_map(VcpuReport::encode).collect())
            }
            Call::Types { first } => Reply::Bytes(domain.types(first)),
            Call::EndTrace => {
                domain.end_trace();
                Reply::Done([0; 5])
            }
            Call::Rings => Reply::Bytes(domain.rings().into_iter().flat_map(RingReport::encode).collect()),
            Call::Monitors => Reply::Bytes(domain.monitors().into_iter().map(MonitorReport::encode).collect()),
            Call::Devices => Reply::Bytes(domain.devices().into_iter().flat_map(DeviceReport::encode).collect()),
            Call::Note { .. } | Call::HandOver { .. } | Call::Ordered { .. } => self.remarked(domain, call),
            Call::Subscribe => {
                domain.subscribe(&self.socket);
                Reply::Done([0; 5])
            }
            Call::ReadFrame { gfn, offset, len } => read_frame(domain, gfn, offset, len),
            Call::WriteFrame { gfn, offset, bytes } => write_frame(domain, gfn, offset, &bytes),
            Call::SetBreakpoint { .. } | Call::ClearBreakpoint { .. } | Call::Breakpoints { .. } => {
                kept.breakpoints.answer(domain, self.number, &call)
            }
            Call::Pause | Call::Unpause => self.pauses.answer(domain, &call),
            Call::Registers { .. } | Call::SetRegisters { .. } => answer::about_registers(domain, call),
            Call::Translate { .. } | Call::ReadLinear { .. } | Call::WriteLinear { .. } => linear::answer(domain, call),
            Call::Load { gfn, content } => {
                outcome(domain.control(self.number, Control::Prep { gfn, buffer: true }, Some(content)))
            }
            Call::Control(Control::Pin { .. }) | Call::Map { .. } if self.pins.is_full() => {
                let what = format!("this connection has {MOST_PINS} foreign mappings; end some");
                self.refused(domain, &call, refused(Errno::EBUSY, &what))
            }
            Call::Control(Control::Pin { gfn }) => {
                let pinned = domain.control(self.number, Control::Pin { gfn }, None);
                if pinned == Outcome::Proceed {
                    self.pins.add(gfn, false);
                }
                outcome(pinned)
            }
            Call::Map { gfn, write } => self.pins.map(domain, self.number, (gfn, write)),
            Call::Control(Control::Unpin { gfn }) => match self.pins.unpin(domain, self.number, gfn) {
                Some(ended) => outcome(ended),
                None => {
                    let what = format!("frame {gfn} is not mapped by this connection");
                    self.refused(domain, &call, refused(Errno::EINVAL, &what))
                }
            },
            Call::Control(control) => self.control(domain, control),
            Call::Hello { .. } => refused(Errno::EINVAL, "greeted already"),
            // They are answered where their descriptors are, or what follows their reply.
            Call::SetPageFile | Call::PageFile | Call::Record | Call::Memory { .. } | Call::Release { .. } => {
                refused(Errno::EINVAL, "the first call is Hello")
            }
        }
    }

    fn control(&mut self, domain: &mut impl Hypercalls, control: Control) -> Reply {
        if let Control::Disable { ring, .. } = control
            && let Some(channel) = self.rings.iter().find(|channel| channel.ring == ring)
            && (channel.clear() || self.signalled.contains(&ring))
        {
            // What it answered and signalled before, and not what the end of the ring finds on it.
            domain.take_responses(channel);
        }
        let reply = outcome(domain.control(self.number, control, None));
        // One that drains is its consumer's until that has answered what is due.
        self.rings.retain(|channel| domain.is_current(channel));
        reply
    }

    /// What the client says for the trace alone.
    fn remarked(&self, domain: &mut impl Hypercalls, call: Call) -> Reply {
        let connection = self.number;
        match call {
            Call::Note { text } => return Reply::Done([domain.note(connection, &text), 0, 0, 0, 0]),
            Call::HandOver { text: consumer } => domain.remark(|| Remark::HandedOver { connection, consumer }),
            Call::Ordered { text: order } => domain.remark(|| Remark::Ordered { connection, order }),
            _ => {}
        }
        Reply::Done([0; 5])
    }

    /// A control operation that does not come to the engine, for the trace.
    fn refused(&self, domain: &mut impl Hypercalls, call: &Call, reply: Reply) -> Reply {
        domain.called(self.number, call, &reply);
        reply
    }

    fn send(&mut self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) {
        match send(&self.socket, packet, descriptors) {
            // It is gone. What it asked for before counts, and the end comes after that.
            Ok(_) | Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => {}
            // A client that does not read its replies harms nobody else.
            Err(_) => self.alive = false,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
