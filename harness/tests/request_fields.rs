//! What stands in the requests of a live domain, beside what a sequence shows: addresses of instructions, registers, what made an access.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::guest::symbols::Symbols;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use mem_event::message::{Call, Notice};
use mem_event::wire::vm_event::Registers;
use mem_event::{AccessType, Control, Cpu, CpuEventKind, Event, Gfn, Layout, MonitorMode, Request, Ring, VcpuId};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;
use support::{machine, scenario, wait_for};

const SETTINGS: RingSettings = RingSettings { layout: Layout::VmEvent7, slots: 0 };
const RDI: usize = 7;

/// A guest before its first instruction, and a listener in the layout of `vm_event`.
struct Domain {
    qemu: Qemu,
    folder: RunFolder,
    symbols: Symbols,
    toolstack: Client,
    channel: Channel,
}

fn domain(name: &str) -> Domain {
    let (mut qemu, folder, job) = machine(scenario(name));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let channel = Channel::enable(&folder.file("socket"), Ring::Access, SETTINGS).unwrap();
    qemu.qmp.execute("cont").unwrap();
    Domain { qemu, folder, symbols: job.symbols(), toolstack, channel }
}

impl Domain {
    /// The next checkpoint's number and arguments.
    fn checkpoint(&mut self) -> (usize, [u64; 3]) {
        loop {
            match self.toolstack.notice().unwrap() {
                Some(Notice::Checkpoint { number, arguments, .. }) => {
                    return (usize::try_from(number).unwrap(), arguments);
                }
                _ => wait_for("a checkpoint", &self.toolstack),
            }
        }
    }

    fn release(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    }

    /// The guest goes on from this checkpoint and from all others.
    fn go_on_alone(&mut self) {
        self.toolstack = Client::connect(&self.folder.file("socket")).unwrap();
    }

    fn monitor(&mut self, kind: CpuEventKind) {
        let control = Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false };
        self.toolstack.values(&Call::Control(control)).unwrap();
    }

    /// The next request with its registers; a signal may come without one.
    fn request(&mut self) -> (Request, Registers) {
        loop {
            if let Some(request) = self.channel.take() {
                return (request, self.channel.registers().expect("registers"));
            }
            wait_for("a request", &self.channel);
            self.channel.clear_signal();
        }
    }

    fn answer(&mut self, request: &Request) {
        self.channel.answer(&request.answer());
        self.channel.kick().unwrap();
    }

    fn address(&self, symbol: &str) -> u64 {
        self.symbols.find(symbol).unwrap().gpa.0
    }
}

fn cpu(request: &Request) -> Cpu {
    match request.event {
        Event::Cpu(cpu) => cpu,
        other => panic!("{other:?} is no CPU event"),
    }
}

/// Two rounds of the guest's writes: two changes of CR0, CR3 and CR4 each, and two writes of the same value to a model-specific register.
#[test]
fn a_register_is_told_before_it_is_written_at_its_instruction_and_with_what_it_held() {
    let mut domain = domain("cpu_events");
    let _ = domain.checkpoint();
    [CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4, CpuEventKind::Msr]
        .into_iter()
        .for_each(|kind| domain.monitor(kind));
    domain.go_on_alone();
    let wrmsr = domain.address("cpu_write_star") + 15;
    let functions = ["cpu_write_cr0", "cpu_write_cr3", "cpu_write_cr4"].map(|name| domain.address(name));
    let mut star = None;
    for number in 0..16 {
        let (request, registers) = domain.request();
        let [cr0, _, cr3, cr4] = registers.control;
        let write = |at: usize, new, old, held| {
            assert_eq!((registers.rip, old), (functions[at], held), "event {number}: {request:?}");
            assert_eq!((registers.general[RDI], new == old), (new, false), "event {number}: {request:?}");
        };
        match cpu(&request) {
            Cpu::Cr0 { new, old } => write(0, new, old, cr0),
            Cpu::Cr3 { new, old } => write(1, new, old, cr3),
            Cpu::Cr4 { new, old } => write(2, new, old, cr4),
            Cpu::Msr { msr, new, old } => {
                assert_eq!((registers.rip, msr), (wrmsr, 0xc000_0081), "a write that is refused is none");
                assert_eq!(old, star.unwrap_or(0), "what was written last, and nothing after a reset");
                star = Some(new);
            }
            other => panic!("{other:?} was not asked for"),
        }
        let kinds = [CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4, CpuEventKind::Msr];
        assert_eq!(cpu(&request).kind(), kinds[number % 8 / 2], "event {number}");
        domain.answer(&request);
    }
}

#[test]
fn a_successor_is_told_the_registers_of_what_its_predecessor_did_not_answer() {
    let mut domain = domain("cpu_events");
    let _ = domain.checkpoint();
    domain.monitor(CpuEventKind::Cr3);
    domain.go_on_alone();
    let (request, registers) = domain.request();
    assert_eq!(registers.rip, domain.address("cpu_write_cr3"));
    domain.channel.client.hang_up();
    // Clients are served in the order in which they came: the end is seen.
    let socket = domain.folder.file("socket");
    Client::connect(&socket).unwrap().info().unwrap();
    domain.channel = Channel::enable(&socket, Ring::Access, SETTINGS).unwrap();
    assert_eq!(domain.request(), (request, registers));
    domain.answer(&request);
    let (next, registers) = domain.request();
    let Cpu::Cr3 { old, .. } = cpu(&next) else { panic!("{next:?}") };
    assert_eq!(old, registers.control[2], "the monitor is the successor's too");
}

/// The guest's checkpoints come before the delivery of exceptions and interrupts, the load of a segment, and walks, each with the function that
/// does it.
#[test]
fn what_the_processor_touches_by_itself_is_told_at_its_instruction_and_as_a_walk_where_it_is_one() {
    const LONGEST: u64 = 0x40;
    let mut domain = domain("interrupts");
    let mut cases = 0;
    loop {
        let (number, [.., function]) = domain.checkpoint();
        let Some(name) = ["STACK", "IDT", "TSS", "GDT", "TABLE"].get(number - 1) else { break };
        let gfn = Gfn(domain.address(name) >> 12);
        let set = |access| Call::Control(Control::SetAccess { first: gfn, count: 1, access });
        domain.toolstack.values(&set(AccessType::N)).unwrap();
        domain.release();
        let (request, registers) = domain.request();
        let Event::Violation { gla, in_gpt, .. } = request.event else { panic!("{request:?}") };
        assert_eq!((gla, request.frame()), (None, Some(gfn)), "{name}");
        let into = registers.rip.wrapping_sub(function);
        assert!(into < LONGEST, "{name}: {:#x} is not in the function at {function:#x}", registers.rip);
        assert_eq!(in_gpt, *name == "TABLE", "{name}");
        domain.toolstack.values(&set(AccessType::Rwx)).unwrap();
        domain.answer(&request);
        cases += 1;
    }
    assert_eq!(cases, 9);
    domain.toolstack.send(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    wait_for("the guest's end", &domain.qemu);
    assert!(domain.qemu.console().contains("verdict: success"), "{}", domain.qemu.console());
}
