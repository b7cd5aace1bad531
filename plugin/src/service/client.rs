//! One connection to the control socket: a toolstack, a consumer, or both.

use crate::engine::hypervisor::Hypervisor;
use crate::host::event_channel::EventChannel;
use crate::host::vcpu::Vcpu;
use crate::service::page_file::PageFile;
use crate::service::peer::Peer;
use mem_event::message::{Call, DeviceReport, LARGEST, MonitorReport, Reply, RingReport, VERSION, VcpuReport};
use mem_event::{Control, Errno, Gfn, Outcome, PAGE_SIZE, Ring, VcpuId};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls served before the others get their turn, unless it takes longer.
const TURN: usize = 32;
/// How long a turn may take, but for its last call: rights of a whole domain are changed in some milliseconds.
const TURN_TIME: Duration = Duration::from_millis(1);
/// Foreign mappings of one connection: 4 GiB of frames.
const MOST_PINS: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub struct Client {
    socket: Arc<OwnedFd>,
    peer: Peer,
    greeted: bool,
    alive: bool,
    /// The rings that this client enabled.
    rings: Vec<Arc<EventChannel>>,
    /// The foreign mappings of this client, a frame once for each.
    pins: Vec<Gfn>,
}

impl Client {
    /// A new connection.
    pub fn new(socket: OwnedFd, peer: Peer) -> Client {
        Client { socket: Arc::new(socket), peer, greeted: false, alive: true, rings: Vec::new(), pins: Vec::new() }
    }

    /// The process that made it.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// The rings that it enabled.
    pub fn channels(&self) -> &[Arc<EventChannel>] {
        &self.rings
    }

    /// Whether the connection stands.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// The connection ended: its rings have lost their consumer, its mappings are gone. Always false, for `retain`.
    pub fn part(&mut self, hypervisor: &Hypervisor) -> bool {
        hypervisor.host.unsubscribe(&self.socket);
        for gfn in self.pins.drain(..) {
            let _ = hypervisor.control(Control::Unpin { gfn }, None);
        }
        for channel in self.rings.drain(..) {
            hypervisor.consumer_lost(&channel);
        }
        false
    }

    /// Serves the calls that wait, then its rings that were signalled.
    pub fn serve(&mut self, hypervisor: &Hypervisor, page_file: &mut PageFile) {
        // Before the calls: a call that was sent before a signal is among those that are served then. A call may end a ring, or begin
        // one.
        let signalled = |channel: &Arc<EventChannel>| (Arc::clone(channel), channel.clear());
        let rings: Vec<_> = self.rings.iter().map(signalled).collect();
        let all = self.serve_calls(hypervisor, page_file);
        for (channel, signalled) in rings {
            if all && (signalled || channel.pollers.is_pending()) {
                hypervisor.take_responses(&channel);
            } else if signalled {
                // The rest has its turn when the others had theirs.
                channel.notify_service();
            }
        }
    }

    /// Whether all that wait were served.
    fn serve_calls(&mut self, hypervisor: &Hypervisor, page_file: &mut PageFile) -> bool {
        let mut packet = vec![0; LARGEST + 1];
        let begun = Instant::now();
        for served in 0..TURN {
            if served > 0 && begun.elapsed() > TURN_TIME {
                return false;
            }
            match receive(&self.socket, &mut packet) {
                Ok((0, _)) => self.alive = false,
                Ok((length, file)) => {
                    self.serve_call(hypervisor, page_file, (&packet[..length.min(packet.len())], file))
                }
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

    fn serve_call(
        &mut self,
        hypervisor: &Hypervisor,
        page_file: &mut PageFile,
        (packet, file): (&[u8], Option<OwnedFd>),
    ) {
        // Contents that were handed over come before the calls that were sent after them.
        self.rings.iter().for_each(|channel| hypervisor.take_loads(channel));
        match Call::decode(packet) {
            Ok((sequence, operation, call)) if self.greeted && matches!(call, Call::SetPageFile | Call::PageFile) => {
                self.answer_about_file(page_file, (sequence, operation), call == Call::PageFile, file);
            }
            Ok((sequence, operation, call)) => self.answer(hypervisor, sequence, operation, call),
            Err(malformed) => {
                // Nothing in such a packet can be trusted to say what it answers.
                self.send(&Reply::Refused(Errno::EINVAL, malformed.to_string()).encode(0, 0), &[]);
                self.alive = false;
            }
        }
    }

    fn answer(&mut self, hypervisor: &Hypervisor, sequence: u32, operation: u16, call: Call) {
        let (reply, descriptors) = match call {
            Call::Hello { version } => (self.hello(version), None),
            _ if !self.greeted => (refused(Errno::EINVAL, "the first call is Hello"), None),
            Call::Control(Control::Enable { ring, layout, slots }) => {
                match hypervisor.enable(Control::Enable { ring, layout, slots }, ring, self.peer.number()) {
                    Ok(made) => (Reply::Done([0; 5]), Some(made)),
                    Err((errno, sentence)) => (Reply::Refused(errno, sentence), None),
                }
            }
            Call::Release { vcpu } => match at_checkpoint(hypervisor, vcpu) {
                Ok(vcpu) => {
                    // The reply first: what the vCPU does next may end this process.
                    self.send(&Reply::Done([0; 5]).encode(sequence, operation), &[]);
                    return vcpu.release_checkpoint();
                }
                Err(reply) => (reply, None),
            },
            other => (self.plain(hypervisor, other), None),
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
        page_file: &mut PageFile,
        (sequence, operation): (u32, u16),
        asks: bool,
        given: Option<OwnedFd>,
    ) {
        if !self.rings.iter().any(|channel| channel.ring == Ring::Paging) {
            let reply = refused(Errno::EPERM, "the page file is for the client that enabled the paging ring");
            return self.send(&reply.encode(sequence, operation), &[]);
        }
        if asks {
            let kept = page_file.kept();
            let reply = Reply::Done([u64::from(kept.is_some()), 0, 0, 0, 0]).encode(sequence, operation);
            return self.send(&reply, kept.as_slice());
        }
        let reply = match given.map(|file| page_file.keep(file)) {
            Some(Ok(())) => Reply::Done([0; 5]),
            Some(Err(sentence)) => refused(Errno::EINVAL, &sentence),
            None => refused(Errno::EINVAL, "no descriptor came with the call"),
        };
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
        Reply::Done([VERSION, 0, 0, 0, 0])
    }

    fn plain(&mut self, hypervisor: &Hypervisor, call: Call) -> Reply {
        match call {
            Call::Info => Reply::Done(hypervisor.info().values()),
            Call::Vcpus { first } => {
                Reply::Bytes(hypervisor.reports(first).into_iter().flat_map(VcpuReport::encode).collect())
            }
            Call::Types { first } => Reply::Bytes(hypervisor.types(first)),
            Call::EndTrace => {
                hypervisor.end();
                Reply::Done([0; 5])
            }
            Call::Rings => Reply::Bytes(hypervisor.rings().into_iter().flat_map(RingReport::encode).collect()),
            Call::Monitors => Reply::Bytes(hypervisor.monitors().into_iter().map(MonitorReport::encode).collect()),
            Call::Devices => Reply::Bytes(hypervisor.devices().into_iter().flat_map(DeviceReport::encode).collect()),
            Call::Subscribe => {
                hypervisor.host.subscribers.add(Arc::clone(&self.socket));
                Reply::Done([0; 5])
            }
            Call::ReadFrame { gfn, offset, len } => read_frame(hypervisor, gfn, offset, len),
            Call::WriteFrame { gfn, offset, bytes } => write_frame(hypervisor, gfn, offset, &bytes),
            Call::Load { gfn, content } => {
                outcome(hypervisor.control(Control::Prep { gfn, buffer: true }, Some(content)))
            }
            Call::Control(Control::Pin { .. }) if self.pins.len() >= MOST_PINS => {
                refused(Errno::EBUSY, &format!("this connection has {MOST_PINS} foreign mappings; end some"))
            }
            Call::Control(Control::Pin { gfn }) => {
                let pinned = hypervisor.control(Control::Pin { gfn }, None);
                self.pins.extend((pinned == Outcome::Proceed).then_some(gfn));
                outcome(pinned)
            }
            Call::Control(Control::Unpin { gfn }) => match self.pins.iter().position(|pinned| *pinned == gfn) {
                Some(at) => {
                    self.pins.swap_remove(at);
                    outcome(hypervisor.control(Control::Unpin { gfn }, None))
                }
                None => refused(Errno::EINVAL, &format!("frame {gfn} is not mapped by this connection")),
            },
            Call::Control(control) => {
                if let Control::Disable { ring, .. } = control {
                    let reply = outcome(hypervisor.control(control, None));
                    if !matches!(reply, Reply::Refused(..)) {
                        self.rings.retain(|channel| channel.ring != ring);
                    }
                    return reply;
                }
                outcome(hypervisor.control(control, None))
            }
            Call::Hello { .. } => refused(Errno::EINVAL, "greeted already"),
            // They are answered where their descriptors are, or what follows their reply.
            Call::SetPageFile | Call::PageFile | Call::Release { .. } => {
                refused(Errno::EINVAL, "the first call is Hello")
            }
        }
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

/// One packet: its length, and the first descriptor that came with it.
fn receive(socket: &OwnedFd, packet: &mut [u8]) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut ancillary, flags)?;
    let files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((received.bytes, files.last()))
}

/// A process that may not come in is told why; whether it reads that is its own matter.
pub fn refuse(socket: OwnedFd, errno: Errno, sentence: String) {
    let _ = send(&socket, &Reply::Refused(errno, sentence).encode(0, 0), &[]);
}

fn send(socket: &OwnedFd, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, flags)
}

fn refused(errno: Errno, sentence: &str) -> Reply {
    Reply::Refused(errno, sentence.to_owned())
}

fn outcome(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Proceed | Outcome::Wait(_) => Reply::Done([0; 5]),
        Outcome::Value(value) => Reply::Done([value, 0, 0, 0, 0]),
        Outcome::Retry(errno) => refused(errno, "busy; try again"),
        Outcome::Refused(errno, sentence) => Reply::Refused(errno, sentence),
        Outcome::Crashed => refused(Errno::EINVAL, "the domain has crashed"),
    }
}

fn at_checkpoint(hypervisor: &Hypervisor, vcpu: VcpuId) -> Result<&Vcpu, Reply> {
    match hypervisor.host.vcpu(vcpu.0) {
        Some(vcpu) if vcpu.awaits_release() => Ok(vcpu),
        Some(_) => Err(refused(Errno::EINVAL, &format!("vCPU {vcpu} is at no checkpoint"))),
        None => Err(refused(Errno::ESRCH, &format!("no vCPU {vcpu}"))),
    }
}

fn within(offset: u16, len: usize) -> Result<(), (Errno, String)> {
    if len == 0 || usize::from(offset) + len > PAGE_SIZE {
        return Err((Errno::EINVAL, format!("{len} bytes at offset {offset} are not within a frame")));
    }
    Ok(())
}

fn read_frame(hypervisor: &Hypervisor, gfn: Gfn, offset: u16, len: u16) -> Reply {
    let mut bytes = vec![0; usize::from(len)];
    match within(offset, bytes.len()).and_then(|()| hypervisor.read(gfn, offset, &mut bytes)) {
        Ok(()) => Reply::Bytes(bytes),
        Err((errno, sentence)) => Reply::Refused(errno, sentence),
    }
}

fn write_frame(hypervisor: &Hypervisor, gfn: Gfn, offset: u16, bytes: &[u8]) -> Reply {
    match within(offset, bytes.len()).and_then(|()| hypervisor.write(gfn, offset, bytes)) {
        Ok(()) => Reply::Done([0; 5]),
        Err((errno, sentence)) => Reply::Refused(errno, sentence),
    }
}
