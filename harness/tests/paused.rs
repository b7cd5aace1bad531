//! While a vCPU waits for an answer, nothing runs in it, though a timer's interrupts are due all the time.

use crate::support::{
    answer, checkpoint, kernel_maps_write_protected, machine_under, next_checkpoint, next_request, wait_for,
};
use harness::machine::qemu::Gate;
use harness::scenario::Scenario;
use mem_event::message::Call;
use mem_event::{AccessType, Control, CpuEventKind, Event, MonitorMode, Rights, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use std::time::{Duration, Instant};

/// A vCPU leaves its block often in this time, and the timer would have come as often.
const HOLD: Duration = Duration::from_millis(30);
/// As the guest has them.
const ROUNDS: usize = 4;

#[test]
fn no_interrupt_comes_while_a_vcpu_waits_for_an_answer() {
    for gate in [Gate::Callback, Gate::Mmu] {
        if gate == Gate::Callback || kernel_maps_write_protected() {
            none_comes(gate);
        }
    }
}

fn none_comes(gate: Gate) {
    let mut scenario = Scenario::bare("paused");
    scenario.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(gate, scenario);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    checkpoint(&mut toolstack, 1);
    let watched = job.symbols().find("WATCHED").unwrap().gpa.gfn();
    toolstack.set_access(watched, AccessType::N).unwrap();
    let monitor = Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Sync, on_change_only: false };
    toolstack.values(&Call::Control(monitor)).unwrap();
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    for round in 0..3 * ROUNDS {
        let request = next_request(&mut channel);
        // Opened for the access; closed again by the next event, a write of CR3 the last of them.
        let then = match (&request.event, round % 3) {
            (Event::Violation { rights: Rights::R, .. }, 0) => AccessType::R,
            (Event::Violation { rights: Rights::W, .. }, 1) => AccessType::Rw,
            (Event::Cpu(_), 2) => AccessType::N,
            other => panic!("{gate}: {other:?}"),
        };
        harness::poll::readable(&qemu, Instant::now() + HOLD).unwrap();
        toolstack.set_access(watched, then).unwrap();
        answer(&mut channel, &request);
    }
    let stop = next_checkpoint(&mut toolstack);
    assert_eq!((stop.number, stop.arguments[1]), (2, 0), "{gate}: interrupts came while the vCPU waited");
    assert!(stop.arguments[0] >= 3 * ROUNDS as u64, "{gate}: the timer came {} times", stop.arguments[0]);
    drop(toolstack);
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{gate}: {}", qemu.console());
}
