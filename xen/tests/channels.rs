//! Event channels and ring pages: the engine on one side, a tool on the other, and no guest.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use mem_event::page::Index;
use mem_event::ring::Front;
use mem_event::wire::vm_event;
use mem_event::{Cpu, Event, Flags, Layout, Request, Ring, VcpuId};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event as Ready};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use support::{Bench, Made};
use xen::errno::Errno;
use xen::layout::{domctl, evtchn, hypercall};

/// The open device's number.
const DEVICE: u32 = 1;

/// A tool with the monitor ring, and the engine's half of it.
struct Channel {
    bench: Bench,
    set: OwnedFd,
    port: u32,
    front: Front,
}

/// What is to be done with the monitor ring.
fn ring_op(operation: u32) -> Made {
    let mut call = Made::new(domctl::BYTES);
    call.set(domctl::CMD, domctl::VM_EVENT).set(domctl::INTERFACE_VERSION, 0x15).set(domctl::DOMAIN, 1);
    call.set(domctl::VM_EVENT_OP, operation).set(domctl::VM_EVENT_MODE, domctl::MODE_MONITOR);
    call
}

impl Channel {
    fn enable() -> Channel {
        let mut bench = Bench::new();
        bench.call(hypercall::DOMCTL, &[ring_op(domctl::RING_ENABLE)]).unwrap();
        let remote = bench.get(domctl::VM_EVENT_PORT);
        let set = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let page = bench.domain().rings[0].0.clone();
        let front = Front::new(page, Ring::Access, Layout::VmEvent7, 0).unwrap();
        let mut channel = Channel { bench, set, port: 0, front };
        let argument = channel.bench.list(&[1 | u64::from(remote) << 32]);
        channel.port = u32::try_from(channel.ask(evtchn::BIND_INTERDOMAIN, argument).unwrap()).unwrap();
        channel
    }

    fn ask(&mut self, request: u64, argument: u64) -> Result<i64, Errno> {
        self.bench.xen.evtchn(&self.bench.tool, DEVICE, self.set.as_fd(), request, argument)
    }

    fn ask_of_port(&mut self, request: u64, port: u32) -> Result<i64, Errno> {
        let argument = self.bench.list(&[port.into()]);
        self.ask(request, argument)
    }

    /// What the tool reads, without waiting.
    fn read(&mut self) -> Vec<u32> {
        let mut events = Vec::<Ready>::with_capacity(4);
        epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default())).unwrap();
        let numbers: Vec<u32> = events.iter().map(|event| u32::try_from(event.data.u64()).unwrap()).collect();
        self.bench.xen.fired(DEVICE, &numbers)
    }

    fn unmask(&self) {
        self.bench.xen.unmask(DEVICE, self.set.as_fd(), self.port);
    }

    /// The engine puts a request and signals.
    fn put(&mut self, cpu: Cpu) {
        self.front.put(&Request {
            flags: Flags::VCPU_PAUSED,
            vcpu: VcpuId(1),
            event: Event::Cpu(cpu),
            view: mem_event::ViewId::HOST,
        });
        self.signal();
    }

    fn signal(&mut self) {
        xen::ring::signal(&self.bench.domain().rings[0].1);
    }

    /// Whether the engine was notified since the last time.
    fn engine_hears(&mut self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.bench.domain().rings[0].2, &mut count).is_ok()
    }

    /// The tool's own page.
    fn own(&mut self) -> mem_event::page::RingPage {
        let ring = self.bench.xen.guest(1).unwrap().ring(Ring::Access);
        mem_event::page::RingPage::map(ring.file().unwrap()).unwrap()
    }
}

const CR3: Cpu = Cpu::Cr3 { new: 0x2000, old: 0x1000 };

#[test]
fn a_port_is_pending_once_when_it_is_bound() {
    let mut channel = Channel::enable();
    let port = channel.port;
    assert_eq!(channel.read(), [port]);
    channel.unmask();
    assert_eq!(channel.read(), []);
}

#[test]
fn a_masked_port_is_silent_and_what_came_meanwhile_is_told_when_it_is_unmasked() {
    let mut channel = Channel::enable();
    let port = channel.port;
    assert_eq!(channel.read(), [port]);
    channel.signal();
    channel.signal();
    assert_eq!(channel.read(), [], "it is masked");
    channel.unmask();
    assert_eq!(channel.read(), [port], "several signals are one");
    channel.unmask();
    assert_eq!(channel.read(), []);
}

#[test]
fn a_channel_is_bound_once_and_an_unbound_port_is_none() {
    let mut channel = Channel::enable();
    let port = channel.port;
    let again = channel.bench.list(&[1 | 42 << 32]);
    assert_eq!(channel.ask(evtchn::BIND_INTERDOMAIN, again), Err(Errno::EINVAL));
    let other_ring = channel.bench.list(&[1 | 41 << 32]);
    assert_eq!(channel.ask(evtchn::BIND_INTERDOMAIN, other_ring), Err(Errno::EINVAL));
    let other_domain = channel.bench.list(&[2 | 42 << 32]);
    assert_eq!(channel.ask(evtchn::BIND_INTERDOMAIN, other_domain), Err(Errno::ESRCH));
    assert_eq!(channel.ask_of_port(evtchn::NOTIFY, port + 1), Err(Errno::ENOTCONN));
    assert_eq!(channel.ask_of_port(evtchn::UNBIND, port), Ok(0));
    assert_eq!(channel.ask_of_port(evtchn::UNBIND, port), Err(Errno::ENOTCONN));
    assert_eq!(channel.read(), []);
    assert_eq!(channel.ask(evtchn::BIND_INTERDOMAIN, 0), Err(Errno::EFAULT));
}

#[test]
fn a_ring_that_is_enabled_anew_can_be_bound_beside_the_port_of_before_which_hears_nothing() {
    let mut channel = Channel::enable();
    assert_eq!(channel.bench.call(hypercall::DOMCTL, &[ring_op(domctl::RING_DISABLE)]), Ok(0));
    channel.bench.domain().has_ring = false;
    assert_eq!(channel.read(), [channel.port]);
    assert_eq!(channel.bench.call(hypercall::DOMCTL, &[ring_op(domctl::RING_ENABLE)]), Ok(0));
    let remote: u32 = channel.bench.get(domctl::VM_EVENT_PORT);
    let argument = channel.bench.list(&[1 | u64::from(remote) << 32]);
    let port = u32::try_from(channel.ask(evtchn::BIND_INTERDOMAIN, argument).unwrap()).unwrap();
    assert_ne!(port, channel.port);
    // Pending once, as each that is bound.
    assert_eq!(channel.read(), [port]);
    assert_eq!(channel.ask(evtchn::BIND_INTERDOMAIN, argument), Err(Errno::EINVAL));
}

/// LibVMI looks at the ring when its wait is over, and reads its event channel after that: each event took until the end of its next wait.
#[test]
fn requests_are_on_the_tools_page_when_it_has_waited_once_it_has_come_to_look_at_it() {
    let mut channel = Channel::enable();
    let own = channel.own();
    channel.put(CR3);
    channel.bench.xen.show_more();
    assert_eq!(own.load(Index::ReqProd, Ordering::Acquire), 0, "it has not initialised its page yet");
    own.init();
    channel.read();
    assert_eq!(own.load(Index::ReqProd, Ordering::Acquire), 1);
    channel.unmask();
    channel.put(CR3);
    channel.bench.xen.show_more();
    assert_eq!(own.load(Index::ReqProd, Ordering::Acquire), 2);
    let port = channel.port;
    assert_eq!(channel.read(), [port], "the port is still pending");
}

#[test]
fn requests_are_on_the_tools_page_when_it_has_read_and_answers_on_the_engines_when_it_notifies() {
    let mut channel = Channel::enable();
    let own = channel.own();
    // As tools do it, after they have enabled and bound.
    own.init();
    channel.put(CR3);
    assert_eq!(own.load(Index::ReqProd, Ordering::Acquire), 0);
    channel.read();
    assert_eq!(own.load(Index::ReqProd, Ordering::Acquire), 1);
    let slot: vm_event::Slot = own.read(0);
    assert_eq!(vm_event::read_request(&slot).unwrap().event, Event::Cpu(CR3));
    own.store(Index::RspProd, 1, Ordering::Release);
    assert_eq!(channel.front.poll(None, &mut Vec::new()), Ok(0), "nobody was told");
    let port = channel.port;
    channel.ask_of_port(evtchn::NOTIFY, port).unwrap();
    assert!(channel.engine_hears());
    assert_eq!(channel.front.poll(None, &mut Vec::new()), Ok(1));
    let (_, response) = channel.front.take(&mut Vec::new()).unwrap();
    assert_eq!((response.vcpu, response.flags), (1, Flags::VCPU_PAUSED));
    assert_eq!(channel.bench.xen.unknown.take(), [""; 0]);
}

#[test]
fn an_answer_of_another_version_goes_to_the_engine_as_it_is_and_is_named() {
    let mut channel = Channel::enable();
    let own = channel.own();
    channel.put(CR3);
    channel.read();
    own.write_word(0, 1);
    own.store(Index::RspProd, 1, Ordering::Release);
    let port = channel.port;
    channel.ask_of_port(evtchn::NOTIFY, port).unwrap();
    channel.front.poll(None, &mut Vec::new()).unwrap();
    let (_, response) = channel.front.take(&mut Vec::new()).unwrap();
    assert_eq!(response.other_version, Some(1));
    let said = channel.bench.xen.unknown.take();
    assert!(said.len() == 1 && said[0].starts_with("an answer on the access ring has version 0x1,"), "{said:?}");
}

#[test]
fn an_index_that_runs_ahead_is_for_the_engine_to_judge() {
    let mut channel = Channel::enable();
    let own = channel.own();
    channel.put(CR3);
    channel.read();
    own.store(Index::RspProd, 1000, Ordering::Release);
    let port = channel.port;
    channel.ask_of_port(evtchn::NOTIFY, port).unwrap();
    assert!(channel.front.poll(None, &mut Vec::new()).is_err());
}

#[test]
fn requests_that_outlived_a_tool_before_are_the_first_on_the_page() {
    let mut channel = Channel::enable();
    // They were put before the tool has initialised its page.
    channel.put(CR3);
    let own = channel.own();
    own.init();
    channel.read();
    assert_eq!(own.load(Index::ReqProd, Ordering::Acquire), 1);
}
