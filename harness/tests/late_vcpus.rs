//! vCPUs that are possible and not there, and vCPUs that come while the guest runs.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::machine::qemu::Gate;
use harness::scenario::Scenario;
use harness::verdict::Verdict;
use mem_event::message::{Call, Notice};
use mem_event::{AccessType, Control, Event, Gfn, PAGE_SIZE, Request, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use serde_json::json;
use support::{kernel_maps_write_protected, machine_under, scenario, wait_for};

const GATES: [Gate; 2] = [Gate::Callback, Gate::Mmu];

/// A built-in scenario on a machine that has one vCPU of two.
fn with_one_vcpu_of_two(mut scenario: Scenario) -> Scenario {
    scenario.machine.vcpus = 1;
    scenario.machine.args = ["-smp", "1,maxcpus=2"].map(str::to_owned).to_vec();
    scenario
}

/// Waits for the next request.
fn next(channel: &mut Channel) -> Request {
    loop {
        if let Some(request) = channel.take() {
            return request;
        }
        wait_for("a request", &*channel);
        channel.clear_signal();
    }
}

fn answer(channel: &mut Channel, request: &Request) {
    channel.answer(&request.answer());
    channel.kick().unwrap();
}

/// The vCPU that stands at the next checkpoint.
fn checkpoint(toolstack: &mut Client) -> VcpuId {
    loop {
        if let Some(Notice::Checkpoint { vcpu, .. }) = toolstack.notice().unwrap() {
            return vcpu;
        }
        wait_for("the checkpoint", &*toolstack);
    }
}

/// QEMU ended its process: the plugin handed it the number of a vCPU that was never there.
#[test]
fn pages_are_watched_where_fewer_vcpus_are_there_than_possible() {
    for gate in GATES {
        if gate == Gate::Mmu && !kernel_maps_write_protected() {
            continue;
        }
        let (_, sequence) = support::run_under(gate, with_one_vcpu_of_two(scenario("page_cross")));
        assert_eq!(sequence, support::run_under(gate, scenario("page_cross")).1, "{gate:?}");
    }
}

#[test]
fn a_vcpu_that_is_plugged_in_is_stopped_by_what_was_watched_and_paged_out_before() {
    for gate in GATES {
        if gate == Gate::Mmu && !kernel_maps_write_protected() {
            continue;
        }
        late_vcpu_is_stopped(gate);
    }
}

fn late_vcpu_is_stopped(gate: Gate) {
    let mut guest = with_one_vcpu_of_two(Scenario::bare("late_vcpu"));
    guest.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(gate, guest);
    let socket = folder.file("socket");
    let mut toolstack = Client::connect(&socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut listener = Channel::enable(&socket, Ring::Access, RingSettings::default()).unwrap();
    let mut pager = Channel::enable(&socket, Ring::Paging, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let first = checkpoint(&mut toolstack);
    let frame = |name: &str| -> Gfn { job.symbols().find(name).unwrap().gpa.gfn() };
    let (watched, paged) = (frame("WATCHED"), frame("PAGED"));
    toolstack.set_access(watched, AccessType::N).unwrap();
    pager.client.control(Control::Nominate { gfn: paged }).unwrap().unwrap();
    let content = pager.client.read(paged, 0, u16::try_from(PAGE_SIZE).unwrap()).unwrap();
    pager.client.control(Control::Evict { gfn: paged }).unwrap().unwrap();
    plug_in_a_vcpu(&mut qemu.qmp);
    toolstack.values(&Call::Release { vcpu: first }).unwrap();

    let request = next(&mut pager);
    assert_eq!((request.vcpu, request.frame()), (VcpuId(1), Some(paged)), "{gate:?}");
    pager.client.values(&Call::Load { gfn: paged, content: content.into() }).unwrap();
    answer(&mut pager, &request);

    let request = next(&mut listener);
    assert_eq!((request.vcpu, request.frame()), (VcpuId(1), Some(watched)), "{gate:?}");
    assert!(matches!(request.event, Event::Violation { offset: 8, .. }), "{:?}", request.event);
    listener.client.set_access(watched, AccessType::Rwx).unwrap();
    answer(&mut listener, &request);

    let last = checkpoint(&mut toolstack);
    toolstack.send(&Call::Release { vcpu: last }).unwrap();
    wait_for("the guest's end", &qemu);
    let verdict = Verdict::on_console(&qemu.console());
    assert!(qemu.console().contains("verdict: success"), "{gate:?}: {verdict:?} {}", qemu.errors());
}

/// The one that is possible and not there.
fn plug_in_a_vcpu(qmp: &mut harness::machine::qmp::Qmp) {
    let possible = qmp.execute("query-hotpluggable-cpus").unwrap();
    let absent = possible.as_array().unwrap().iter().find(|vcpu| vcpu.get("qom-path").is_none()).unwrap();
    let mut device = absent["props"].clone();
    device["driver"] = absent["type"].clone();
    qmp.execute_with("device_add", &json!(device)).unwrap();
}
