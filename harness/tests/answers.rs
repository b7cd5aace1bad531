//! What a listener does to a vCPU by its answer, as often as it likes: a function is skipped and returns what the listener says.
//!
//! `MEM_EVENT_SKIPS` says how often (`ci/soak`: more often).

use crate::support::domain::how_often;
use crate::support::{answer, checkpoint, gates, machine_under, next_request, run_under, scenario, wait_for};
use harness::scenario::Scenario;
use mem_event::message::Call;
use mem_event::{
    Control, Cpu, CpuEventKind, DescriptorTable, Event, Flags, Layout, MonitorMode, Request, Ring, VcpuId,
};
use mem_event_client::{Channel, Client, RingSettings};
use std::path::Path;

/// The built-in scenario `answers` with so many calls of the function, and no writes of registers that are denied.
fn skips(times: u64, breakpoints: bool) -> Scenario {
    let stop = if breakpoints {
        // At the first byte of the function stands a breakpoint of the listener's own.
        "{ monitor = { event = \"int3\", mode = \"sync\" } }, { write = { at = \"SKIPPED\", value = \"0xcccccccccccccccc\" } }"
    } else {
        "{ set-access = { frames = \"SKIPPED\", access = \"rw\" } }"
    };
    let text = format!(
        r#"
        version = 1
        about = "Skips"
        [machine]
        guest = "answers"
        [rings.access]
        layout = "vm_event7"
        [[consumers.listener.rules]]
        frames = "SKIPPED"
        then = {{ return = 0x7777 }}
        [[steps]]
        at = 1
        do = [{stop}, {{ write = {{ at = "ROUNDS", value = {times} }} }}]
        [[steps]]
        at = 2
        do = [
            {{ expect = {{ at = "FOUND", value = {sum} }} }},
            {{ expect = {{ at = "FOUND+0x8", value = 0 }} }},
            {{ expect = {{ at = "FOUND+0x10", value = 0 }} }},
        ]
        "#,
        sum = 0x7777 * times
    );
    Scenario::parse(Path::new("skips.toml"), text).unwrap()
}

/// The scenario has what the guest must find; the trace replays.
#[test]
fn a_function_is_skipped_and_returns_another_value_ten_thousand_times_with_flags_and_stack_right() {
    let times = how_often("MEM_EVENT_SKIPS", 10_000);
    for (gate, breakpoints) in gates().into_iter().flat_map(|gate| [(gate, false), (gate, true)]) {
        let (outcome, sequence) = run_under(gate, skips(times, breakpoints));
        let answers = sequence.lines().filter(|line| line.ends_with("answer VCPU_PAUSED|SET_REGISTERS")).count();
        assert_eq!(answers as u64, times, "{gate:?}, breakpoints: {breakpoints}\n{}", outcome.console);
    }
}

/// Where the guest `exits` stores GDTR.
const STORED: u16 = 0x80;

/// Which table's register is stored, or loaded.
fn told(request: &Request) -> (DescriptorTable, bool) {
    let Event::Cpu(Cpu::Descriptor { table, is_write, .. }) = request.event else { panic!("{request:?}") };
    (table, is_write)
}

fn emulate(channel: &mut Channel, request: &Request, flags: Flags, data: &[u8]) {
    channel.answer_with_data(&request.answer().with(Flags::EMULATE.union(flags)), data);
    channel.kick().unwrap();
}

/// Its store writes nothing, and its load reads what memory does not hold: else the guest would have no segments from there on.
#[test]
fn gdtr_is_stored_in_vain_and_loaded_from_an_answer() {
    for gate in gates() {
        let (mut qemu, folder, job) = machine_under(gate, scenario("exits"));
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let settings = RingSettings { layout: Layout::VmEvent7, slots: 0 };
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
        qemu.qmp.execute("cont").unwrap();
        checkpoint(&mut toolstack, 2);
        let monitor =
            |mode| Call::Control(Control::Monitor { kind: CpuEventKind::Descriptor, mode, on_change_only: false });
        toolstack.values(&monitor(MonitorMode::Sync)).unwrap();
        let gfn = job.symbols().find("FOUND").unwrap().gpa.gfn();
        let write = |bytes: &[u8]| Call::WriteFrame { gfn, offset: STORED, bytes: bytes.into() };
        toolstack.values(&write(&[0; 10])).unwrap();
        toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
        let store = next_request(&mut channel);
        assert_eq!(told(&store), (DescriptorTable::Gdtr, false), "{gate}");
        let registers = channel.registers().unwrap();
        let gdtr = [&registers.gdtr_limit.to_le_bytes()[..], &registers.gdtr_base.to_le_bytes()].concat();
        emulate(&mut channel, &store, Flags::EMULATE_NOWRITE, &[]);
        let load = next_request(&mut channel);
        assert_eq!(told(&load), (DescriptorTable::Gdtr, true), "{gate}");
        assert_eq!(toolstack.read(gfn, STORED, 10).unwrap(), [0; 10], "{gate}: it was stored in vain");
        let data = [&10_u32.to_le_bytes()[..], &gdtr].concat();
        emulate(&mut channel, &load, Flags::SET_EMUL_READ_DATA, &data);
        let rest = next_request(&mut channel);
        assert_eq!(toolstack.read(gfn, STORED, 10).unwrap(), [0; 10], "{gate}: memory holds what it held");
        assert_eq!(channel.registers().unwrap().gdtr_base, registers.gdtr_base, "{gate}: and the register what it did");
        // The guest compares what it stored with earlier rounds'.
        toolstack.values(&write(&gdtr)).unwrap();
        toolstack.values(&monitor(MonitorMode::Disabled)).unwrap();
        answer(&mut channel, &rest);
        checkpoint(&mut toolstack, 5);
        drop((toolstack, channel));
        wait_for("the guest's end", &qemu);
        assert!(qemu.console().contains("verdict: success"), "{gate}: {}", qemu.console());
    }
}
