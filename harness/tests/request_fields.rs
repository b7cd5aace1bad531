//! What stands in the requests of a live domain, beside what a sequence shows: addresses of instructions, registers, what made an access.

use crate::support::{machine, next_checkpoint, next_request, scenario, wait_for};
use harness::guest::symbols::Symbols;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use mem_event::message::Call;
use mem_event::wire::vm_event::Registers;
use mem_event::{
    AccessType, Control, Cpu, CpuEventKind, DescriptorTable, Event, Gfn, Gpa, Layout, MonitorMode, Request, Ring,
    VcpuId,
};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;

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
        let stop = next_checkpoint(&mut self.toolstack);
        (usize::try_from(stop.number).unwrap(), stop.arguments)
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
        let request = next_request(&mut self.channel);
        (request, self.channel.registers().expect("registers"))
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

/// Of both leaves that the guest asks for; its code stores what it got.
#[test]
fn cpuid_is_told_with_the_registers_that_it_will_return_and_the_guest_gets_just_those() {
    let mut domain = domain("exits");
    let (_, [found, ..]) = domain.checkpoint();
    domain.monitor(CpuEventKind::Cpuid);
    domain.release();
    let instruction = domain.address("EXITS_CPUID") + 8;
    let told = [(0, 0), (0x4000_0000, 7)].map(|asked| {
        let (request, registers) = domain.request();
        let Cpu::Cpuid { leaf, subleaf, length } = cpu(&request) else { panic!("{request:?}") };
        assert_eq!(((leaf, subleaf), length, registers.rip), (asked, 2, instruction));
        domain.answer(&request);
        [0, 3, 1, 2].map(|register| u32::try_from(registers.general[register]).unwrap())
    });
    assert_eq!(domain.checkpoint().0, 2);
    let got = [0, 0x30].map(|offset| domain.toolstack.read(Gpa(found).gfn(), offset, 16).unwrap());
    let got = got.map(|bytes| bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect::<Vec<_>>());
    assert_eq!(got, told);
    assert_ne!(told[0], [0; 4]);
    domain.go_on_alone();
}

#[test]
fn an_instruction_that_exits_is_told_at_its_place_with_what_is_known_of_it() {
    let mut domain = domain("exits");
    let (_, [found, ..]) = domain.checkpoint();
    [CpuEventKind::Descriptor, CpuEventKind::GuestRequest, CpuEventKind::Io]
        .into_iter()
        .for_each(|kind| domain.monitor(kind));
    domain.release();
    let (tables, ports) = (domain.address("EXITS_TABLES"), domain.address("EXITS_PORTS"));
    let mut told = Vec::new();
    for _ in 0..12 {
        let (request, registers) = domain.request();
        told.push((registers.rip, cpu(&request)));
        domain.answer(&request);
    }
    let descriptor =
        |table, is_write, information, qualification| Cpu::Descriptor { table, is_write, information, qualification };
    let sidt = told[2];
    assert_eq!(told[0], (tables + 2, descriptor(DescriptorTable::Gdtr, false, 0x03c1_8100, 0x80)));
    assert_eq!(sidt.1, descriptor(DescriptorTable::Idtr, false, 0x1385_8101, 0x90));
    // Relative to the instruction pointer: where the operand is.
    assert_eq!(told[3], (sidt.0 + 8, descriptor(DescriptorTable::Idtr, true, 0x3841_8100, found + 0x90)));
    let port = |bytes, is_read, is_string| Cpu::Io { port: 0x80, bytes, is_read, is_string };
    let due = [port(1, false, false), port(4, false, false), port(2, true, false), port(1, false, true)];
    assert_eq!(told[7..11].iter().map(|(_, cpu)| *cpu).collect::<Vec<_>>(), due);
    assert_eq!(told[7].0, ports + 11);
    assert_eq!(told[11], (domain.address("exits_vmcall"), Cpu::GuestRequest));
    assert_eq!(domain.checkpoint().0, 2);
    domain.go_on_alone();
}

/// `lmsw` from a register and from memory, and `clts`: four writes that change CR0, of six.
#[test]
fn half_a_write_of_cr0_is_told_before_it_too_wherever_its_word_stands() {
    let mut domain = domain("machine_status");
    let _ = domain.checkpoint();
    domain.monitor(CpuEventKind::Cr0);
    domain.go_on_alone();
    let writes = [("by_register", 0), ("by_clear", 0), ("by_register", 0), ("by_memory", 1)];
    for (function, into) in writes {
        let (request, registers) = domain.request();
        let Cpu::Cr0 { new, old } = cpu(&request) else { panic!("{request:?}") };
        // Of `by_memory` the first instruction pushes the word.
        assert_eq!((registers.rip, registers.control[0]), (domain.address(function) + into, old), "{function}");
        assert_eq!(new ^ old, 8, "{function}: TS");
        domain.answer(&request);
    }
}

/// What is written to STAR is seen in the registers of what comes after it.
#[test]
fn the_register_file_has_the_registers_that_lie_behind_the_general_ones() {
    let mut domain = domain("cpu_events");
    let _ = domain.checkpoint();
    [CpuEventKind::Cr0, CpuEventKind::Msr].into_iter().for_each(|kind| domain.monitor(kind));
    domain.go_on_alone();
    let mut star = 0;
    for _ in 0..8 {
        let (request, registers) = domain.request();
        assert_eq!(registers.star, star, "{request:?}");
        // As after a reset.
        assert_eq!(registers.debug, [0xffff_0ff0, 0x400], "DR6, DR7");
        if let Cpu::Msr { msr: 0xc000_0081, new, .. } = cpu(&request) {
            star = new;
        }
        domain.answer(&request);
    }
    assert_ne!(star, 0);
}

/// Each round writes one value to STAR, twice.
#[test]
fn of_a_model_specific_register_changes_alone_are_told_where_that_is_asked_for() {
    let mut domain = domain("cpu_events");
    let _ = domain.checkpoint();
    let control = Control::Monitor { kind: CpuEventKind::Msr, mode: MonitorMode::Sync, on_change_only: true };
    domain.toolstack.values(&Call::Control(control)).unwrap();
    domain.monitor(CpuEventKind::Cr0);
    domain.go_on_alone();
    let mut writes = Vec::new();
    // Two of CR0 begin a round; the fifth comes after two whole rounds.
    for _ in 0..5 {
        let mut request = domain.request().0;
        while let Cpu::Msr { new, old, .. } = cpu(&request) {
            writes.push((new, old));
            domain.answer(&request);
            request = domain.request().0;
        }
        domain.answer(&request);
    }
    assert_eq!(writes, [(0x0012_3456_789a_bcde, 0)]);
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
