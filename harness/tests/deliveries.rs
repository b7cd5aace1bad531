//! A vCPU that waits before an exception or interrupt is delivered to it: the machine stops, goes on, is saved and ends as it does at any event, and what
//! is delivered then is what was told.

use crate::support::example::Example;
use crate::support::{answer, checkpoint, gates, machine_under, next_request, run_under, scenario, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::external::External;
use mem_event::message::{Call, VcpuState};
use mem_event::{
    AccessType, Control, Cpu, CpuEventKind, Event, Flags, Gfn, Layout, MonitorMode, Request, Ring, TrapKind, VcpuId,
};
use mem_event_client::{Channel, Client, RingSettings};
use serde_json::json;
use std::fs::File;

/// What the guest `next_interrupt` gets, in its order.
const DUE: [(u8, TrapKind); 9] = [
    (6, TrapKind::Exception),
    (14, TrapKind::Exception),
    (26, TrapKind::SoftwareInterrupt),
    (3, TrapKind::SoftwareException),
    (31, TrapKind::Interrupt),
    (2, TrapKind::Nmi),
    (27, TrapKind::SoftwareInterrupt),
    (28, TrapKind::SoftwareInterrupt),
    (6, TrapKind::Exception),
];
/// Where in that list the interrupt of the local APIC's stands.
const INTERRUPT: usize = 4;

/// A guest whose events are told, at one of its checkpoints.
struct Told {
    qemu: Qemu,
    folder: RunFolder,
    job: Job,
    toolstack: Client,
    channel: Channel,
}

impl Told {
    fn at(gate: Gate, name: &str, number: u64, arguments: &[String]) -> Told {
        let mut scenario = scenario(name);
        scenario.machine.args.extend_from_slice(arguments);
        let (mut qemu, folder, job) = machine_under(gate, scenario);
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let settings = RingSettings { layout: Layout::VmEvent7, slots: 0 };
        let channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
        qemu.qmp.execute("cont").unwrap();
        checkpoint(&mut toolstack, number);
        Told { qemu, folder, job, toolstack, channel }
    }

    fn goes_on_telling(&mut self, kind: CpuEventKind) {
        let monitor = Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false };
        self.toolstack.values(&Call::Control(monitor)).unwrap();
        self.goes_on();
    }

    fn goes_on(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    }

    fn comes_to(&mut self, number: u64) {
        checkpoint(&mut self.toolstack, number);
    }

    fn next(&mut self) -> Request {
        next_request(&mut self.channel)
    }

    /// The next interrupt, which is this one.
    fn next_is(&mut self, due: (u8, TrapKind)) -> Request {
        let request = self.next();
        let Event::Cpu(Cpu::Interrupt { vector, kind, .. }) = request.event else { panic!("{request:?}") };
        assert_eq!((vector, kind), due);
        request
    }

    fn stops_and_continues(&mut self) {
        for (command, due) in [("stop", "paused"), ("cont", "running")] {
            self.qemu.qmp.execute(command).unwrap();
            assert_eq!(self.qemu.qmp.execute("query-status").unwrap()["status"], due);
        }
    }

    /// It goes on from its last checkpoint.
    fn ends_well(mut self) {
        self.goes_on();
        drop((self.toolstack, self.channel));
        wait_for("the guest's end", &self.qemu);
        let console = self.qemu.console();
        assert!(console.contains("verdict: success"), "{console}");
        drop(self.folder);
    }
}

#[test]
fn a_machine_stops_and_goes_on_while_a_vcpu_waits_before_each_kind_of_delivery() {
    for gate in gates() {
        let mut told = Told::at(gate, "next_interrupt", 1, &[]);
        told.goes_on_telling(CpuEventKind::Interrupt);
        for due in DUE {
            let request = told.next_is(due);
            let rip = told.channel.registers().unwrap().rip;
            for _ in 0..3 {
                told.stops_and_continues();
            }
            let stands = told.toolstack.vcpus().unwrap()[0];
            assert_eq!(stands.state, VcpuState::Answer, "{gate}, {due:?}: {stands:?}");
            // It leaves QEMU's loop for that, and comes back with what it is to get.
            let context = told.toolstack.registers(VcpuId(0)).unwrap().unwrap();
            assert_eq!(context.registers.rip, rip, "{gate}, {due:?}");
            assert!(!told.channel.is_pending(), "{gate}, {due:?}: it is told once");
            answer(&mut told.channel, &request);
        }
        told.comes_to(2);
        told.ends_well();
    }
}

#[test]
fn the_monitor_ends_a_machine_whose_vcpu_waits_before_a_delivery() {
    for gate in gates() {
        // With -no-reboot a reset is the end.
        for command in ["system_reset", "quit"] {
            let mut told = Told::at(gate, "next_interrupt", 1, &[]);
            told.goes_on_telling(CpuEventKind::Interrupt);
            for due in &DUE[..INTERRUPT] {
                let request = told.next_is(*due);
                answer(&mut told.channel, &request);
            }
            told.next_is(DUE[INTERRUPT]);
            told.qemu.qmp.execute(command).unwrap();
            wait_for("the end", &told.qemu);
        }
    }
}

/// Its controller was told that the vCPU takes it: a saved machine that had it nowhere would wait for it for ever.
#[test]
fn an_interrupt_that_is_told_is_in_the_machine_that_is_saved_meanwhile() {
    for gate in gates() {
        let own = RunFolder::create().unwrap();
        let disk = own.file("state");
        File::create(&disk).unwrap().set_len(1 << 20).unwrap();
        let drive = format!("if=none,id=state,format=raw,snapshot=on,file={}", disk.display());
        let mut told = Told::at(gate, "next_interrupt", 1, &["-drive".to_owned(), drive]);
        told.goes_on_telling(CpuEventKind::Interrupt);
        for due in &DUE[..INTERRUPT] {
            let request = told.next_is(*due);
            answer(&mut told.channel, &request);
        }
        let late = told.next_is(DUE[INTERRUPT]);
        for line in ["savevm one", "loadvm one"] {
            let said = told.qemu.qmp.execute_with("human-monitor-command", &json!({ "command-line": line })).unwrap();
            assert_eq!(said.as_str(), Some(""), "{gate}: {line}");
        }
        // It is the machine's next exception now, and is told anew. The answer from before is nothing to the machine that was loaded.
        let request = told.next_is((DUE[INTERRUPT].0, TrapKind::Exception));
        answer(&mut told.channel, &late);
        answer(&mut told.channel, &request);
        for due in &DUE[INTERRUPT + 1..] {
            let request = told.next_is(*due);
            answer(&mut told.channel, &request);
        }
        told.comes_to(2);
        told.ends_well();
    }
}

#[test]
fn registers_that_an_answer_sets_end_a_debug_exception_that_was_not_injected() {
    const TRAP_FLAG: u64 = 1 << 8;
    // Of DR6.
    const STEP: u64 = 1 << 14;
    for gate in gates() {
        let mut told = Told::at(gate, "debug_exceptions", 7, &[]);
        told.goes_on_telling(CpuEventKind::Debug);
        // The steps end, where it stands.
        let request = told.next();
        let mut registers = told.channel.registers().unwrap();
        assert_eq!((registers.debug[0] & (STEP | 0xf), registers.rflags & TRAP_FLAG), (STEP, TRAP_FLAG), "{gate}");
        registers.rflags &= !TRAP_FLAG;
        told.channel.answer_with(&request.answer().with(Flags::SET_REGISTERS), &registers);
        told.channel.kick().unwrap();
        told.comes_to(8);
        told.goes_on();
        // It goes on elsewhere: behind the `nop` that follows.
        let request = told.next();
        assert!(matches!(request.event, Event::Cpu(Cpu::Debug { causes: 2, length: 0, .. })), "{gate}: {request:?}");
        let mut registers = told.channel.registers().unwrap();
        registers.rip += 1;
        told.channel.answer_with(&request.answer().with(Flags::SET_REGISTERS), &registers);
        told.channel.kick().unwrap();
        told.comes_to(9);
        let got = told.job.symbols().find("GOT").unwrap().gpa;
        assert_eq!(told.toolstack.read(got.gfn(), got.offset() + 0x30, 16).unwrap(), [0; 16], "{gate}");
        assert!(!told.channel.is_pending(), "{gate}");
        told.ends_well();
    }
}

#[test]
fn what_was_injected_with_an_answer_is_the_next_interrupt_that_it_asks_for() {
    for gate in gates() {
        let mut told = Told::at(gate, "injected", 33, &[]);
        let watched = told.job.symbols().find("WATCHED").unwrap().gpa.gfn();
        told.toolstack.set_access(watched, AccessType::R).unwrap();
        told.goes_on();
        let violation = told.next();
        let (vector, kind, error, cr2) = (14, TrapKind::Exception, 2, 0xdead_1231_0000);
        let inject = Control::Inject { vcpu: VcpuId(0), vector, kind, error, cr2 };
        told.toolstack.values(&Call::Control(inject)).unwrap();
        told.channel.answer(&violation.answer().with(Flags::GET_NEXT_INTERRUPT));
        told.channel.kick().unwrap();
        let request = told.next();
        let due = Cpu::Interrupt { vector: 14, kind, error, cr2 };
        assert_eq!((request.event, request.flags), (Event::Cpu(due), Flags::VCPU_PAUSED), "{gate}");
        answer(&mut told.channel, &request);
        // The handler has run, and the write comes again.
        let violation = told.next();
        assert_eq!(violation.frame(), Some(Gfn(watched.0)), "{gate}");
        told.toolstack.set_access(watched, AccessType::Rwx).unwrap();
        answer(&mut told.channel, &violation);
        told.comes_to(34);
        told.ends_well();
    }
}

/// The scenario has what the guest must find: the page fault once more, before the write that was stopped.
#[test]
fn the_examples_inject_a_page_fault_and_are_told_that_it_is_what_comes_next() {
    let in_rust = Example::in_rust("inject").in_layout("vm_event7");
    let examples = [Some(in_rust), Example::in_c("inject"), Some(Example::in_python("inject"))];
    for example in examples.into_iter().flatten() {
        let example = example.about("0xdead1231000");
        for gate in gates() {
            let mut scenario = scenario("injected");
            scenario.consumers.external = vec![External::parse(&example.with(&["access"])).unwrap()];
            let (outcome, sequence) = run_under(gate, scenario);
            assert_eq!(outcome.counts.access, 2, "{gate}: {}\n{sequence}", example.command);
            assert!(sequence.contains("vector 14 exception error 0x2"), "{gate}: {}\n{sequence}", example.command);
        }
    }
}
