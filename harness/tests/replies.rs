//! No reply waits for an answer that its own consumer has still to give, wherever the vCPU stands that waits for it.

use crate::support::{answer, checkpoint, kernel_maps_write_protected, machine_under, next_request, wait_for};
use harness::machine::qemu::Gate;
use harness::scenario::Scenario;
use mem_event::message::{Call, Stays};
use mem_event::{AccessType, Control, CpuEventKind, Gfn, MonitorMode, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use std::time::{Duration, Instant};

/// As many as there are ways to stop an instruction of the guest's: by the left page and by the right one, for writes alone and for both.
const STANDS: usize = 27;

/// Between two looks.
const MOMENT: Duration = Duration::from_millis(5);

/// What a consumer may ask before it answers, on its own connection: rights that are taken, of code as well, and instrumentation that is switched.
fn asks(channel: &mut Channel, code: Gfn) {
    let vcpu = VcpuId(0);
    let monitor = |kind, mode| Control::Monitor { kind, mode, on_change_only: false };
    for control in [
        Control::SetAccess { first: code, count: 1, access: AccessType::Rw },
        monitor(CpuEventKind::Cr3, MonitorMode::Sync),
        monitor(CpuEventKind::SingleStep, MonitorMode::Sync),
        Control::SingleStep { vcpu, on: true },
        Control::SingleStep { vcpu, on: false },
        monitor(CpuEventKind::SingleStep, MonitorMode::Disabled),
        monitor(CpuEventKind::Cr3, MonitorMode::Disabled),
        Control::SetAccess { first: code, count: 1, access: AccessType::Rwx },
    ] {
        channel.client.values(&Call::Control(control)).unwrap();
    }
}

fn all_are_replied_to(gate: Gate) {
    let mut scenario = Scenario::bare("page_ends");
    scenario.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(gate, scenario);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    let left = job.symbols().find("ENDS").unwrap().gpa.gfn();
    let right = Gfn(left.0 + 1);
    qemu.qmp.execute("cont").unwrap();
    let mut stays = 0;
    for round in 0..STANDS {
        let vcpu = checkpoint(&mut toolstack, 1);
        let (closed, access) = [(left, AccessType::R), (right, AccessType::R), (right, AccessType::N)][round / 3 % 3];
        toolstack.set_access(closed, access).unwrap();
        toolstack.values(&Call::Release { vcpu }).unwrap();
        let request = next_request(&mut channel);
        // The first half of what it stores is written: it cannot leave, which is found out when it has stood a moment.
        let is_written = gate == Gate::Mmu && (closed, access) == (right, AccessType::R);
        while is_written && toolstack.vcpus().unwrap()[0].stays != Some(Stays::Written) {
            harness::poll::readable(&qemu, Instant::now() + MOMENT).unwrap();
        }
        stays += usize::from(is_written);
        // Code of the guest's that it does not stand in.
        asks(&mut channel, Gfn(left.0 + 0x100));
        assert!(!channel.is_pending(), "{gate}: it stands still");
        toolstack.set_access(closed, AccessType::Rwx).unwrap();
        answer(&mut channel, &request);
    }
    assert_eq!(stays > 0, gate == Gate::Mmu);
    qemu.qmp.execute("quit").unwrap();
    wait_for("the end", &qemu);
}

#[test]
fn who_takes_rights_or_switches_monitors_before_it_answers_gets_its_reply() {
    all_are_replied_to(Gate::Callback);
    if kernel_maps_write_protected() {
        all_are_replied_to(Gate::Mmu);
    }
}
