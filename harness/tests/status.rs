//! `status`: what a consumer that died has left behind is told, and ended.

use crate::support::{command, machine, machine_under, scenario, wait_for};
use harness::consumers::pager::Pager;
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::scenario::settings::PagerSettings;
use harness::scenario::{Place, Scenario};
use mem_event::message::{Call, Notice};
use mem_event::{Control, CpuEventKind, Gfn, MonitorMode, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use serde_json::{Value, json};
use std::path::Path;

fn status(folder: &RunFolder, further: &[&str]) -> String {
    let output = command(folder).arg("status").arg(folder.file("socket")).args(further).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn told(folder: &RunFolder) -> Value {
    serde_json::from_str(&status(folder, &["--json"])).unwrap()
}

/// The plugin has seen that a connection is gone: it serves its clients in the order in which they came.
fn is_seen(socket: &Path) {
    Client::connect(socket).unwrap().info().unwrap();
}

#[test]
fn a_dead_listeners_monitor_is_told_and_released_and_the_guest_goes_on() {
    let (mut qemu, folder, _job) = machine(scenario("cr3_sync"));
    let socket = folder.file("socket");
    let mut toolstack = Client::connect(&socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut listener = Channel::enable(&socket, Ring::Access, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    while !matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { .. })) {
        wait_for("the first checkpoint", &toolstack);
    }
    let served = told(&folder);
    assert_eq!(served["rings"][1]["process"], std::process::id(), "{served}");
    let monitor = Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Sync, on_change_only: false };
    toolstack.values(&Call::Control(monitor)).unwrap();
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    // Nobody holds the guest at its other checkpoints.
    drop(toolstack);
    // One signal comes with the ring.
    while !listener.is_pending() {
        wait_for("the first event", &listener);
        listener.clear_signal();
    }
    assert!(status(&folder, &["--release"]).contains("served by process"), "who is served is left alone");
    listener.client.hang_up();
    is_seen(&socket);

    let left = told(&folder);
    let access = &left["rings"][1];
    assert_eq!(
        (&access["ring"], &access["state"], &access["unanswered"]),
        (&json!("access"), &json!("lost"), &json!(1))
    );
    assert_eq!(left["monitors"][1], json!({ "event": "cr3", "mode": "sync", "on_change_only": false }));
    assert_eq!((&left["vcpus"][0]["state"], &left["vcpus"][0]["ring"]), (&json!("answer"), &json!("access")), "{left}");
    let text = status(&folder, &[]);
    assert!(text.contains("its consumer is gone") && text.contains("monitor   cr3 sync"), "{text}");

    let text = status(&folder, &["--release"]);
    assert!(text.contains("released  the monitor of cr3") && text.contains("released  the access ring"), "{text}");
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

/// No ring was ever there, or it has ended: the guest would stand at its next write of CR3, and nobody stands there yet.
#[test]
fn a_monitor_without_a_ring_is_released_before_a_vcpu_stands_at_it() {
    let (mut qemu, folder, _job) = machine(scenario("cr3_sync"));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    let monitor = Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Sync, on_change_only: false };
    toolstack.values(&Call::Control(monitor)).unwrap();
    drop(toolstack);
    let text = status(&folder, &["--release"]);
    assert!(text.contains("released  the monitor of cr3") && !text.contains("cr3 sync"), "{text}");
    qemu.qmp.execute("cont").unwrap();
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

#[test]
fn what_a_dead_pager_has_out_comes_back_with_its_release() {
    let mut paged = scenario("page_in");
    paged.consumers.pager.get_or_insert_default();
    let memory = paged.machine.memory.0;
    let (mut qemu, folder, _job) = machine(paged);
    let socket = folder.file("socket");
    let mut pager = Pager::enable(&socket, RingSettings::default(), &PagerSettings::default(), memory).unwrap();
    let frames: Vec<Gfn> = (0x100..0x104).map(Gfn).collect();
    assert_eq!(pager.page_out(&frames).unwrap(), 4);
    pager.channel().client.hang_up();
    is_seen(&socket);
    let left = told(&folder);
    assert_eq!((&left["rings"][0]["state"], &left["paged"]), (&json!("lost"), &json!(4)), "{left}");
    let text = status(&folder, &["--release"]);
    assert!(text.contains("released  the paging ring") && text.contains(" 0 paged out"), "{text}");
    qemu.qmp.execute("cont").unwrap();
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

/// It is the machine of somebody else: whoever joined it with a consumer of his own leaves it free.
#[test]
fn a_consumer_that_an_attached_command_started_is_ended_with_it_and_the_guest_goes_on() {
    let mut endless = Scenario::bare("endless");
    endless.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(Gate::Callback, endless);
    qemu.qmp.execute("cont").unwrap();
    let consumer = format!("access={} consumer listener --treatment once", env!("CARGO_BIN_EXE_mem-event"));
    // On a busy machine a short time may be over before the first event.
    let has_events = |deadline| {
        let mut attach = command(&folder);
        attach.arg("attach").arg(folder.file("socket")).arg("--guest").arg(&job.guest.as_ref().unwrap().path);
        attach.args(["--consumer", &consumer, "--watch", "COUNTS=rw", "--deadline", deadline, "--json"]);
        let output = attach.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        said.contains("\"event\":\"access\"")
    };
    assert!(["1s", "10s", "100s"].into_iter().any(has_events), "the consumer has events");

    let left = told(&folder);
    assert_eq!(left["rings"][1]["state"], "absent", "{left}");
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    let gfn = Place::from("COUNTS").frames(&job.symbols()).unwrap().first;
    let first = toolstack.read(gfn, 0, 8).unwrap();
    while toolstack.read(gfn, 0, 8).unwrap() == first {
        std::thread::yield_now();
    }
    qemu.terminate();
    wait_for("the machine's end", &qemu);
}
