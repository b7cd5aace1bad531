//! Where nearly all memory is watched, what nobody has touched has no memory until it is touched, and that touch is told like any other.

use crate::support::{gates, kernel_maps_write_protected, memory_file, run_under, scenario};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Scenario, Size};
use harness::toolstack::transcript::Record;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Gfn};
use mem_event_client::Client;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Frames of memory, and those that `sweep` writes to for the first time.
const FRAMES: u64 = 0x2000;
const SWEPT: u64 = 0x1000;

/// All vCPUs write to 16 MiB that nobody has touched, of 32 MiB that are watched but for the first: how often it was told of the 16.
fn told(gate: Gate, vcpus: u32, access: &str, then: &str) -> u64 {
    let text = format!(
        r#"
        version = 1
        about = "all memory is watched"
        deadline = "120s"
        machine = {{ guest = "sweep", vcpus = {vcpus}, memory = "32M" }}
        [[consumers.listener.rules]]
        frames = "0x800..0x1800"
        then = "{then}"
        [[consumers.listener.rules]]
        then = "grant"
        [[steps]]
        at = 1
        do = [
            {{ set-access = {{ frames = "0x100..{FRAMES:#x}", access = "{access}" }} }},
            {{ set-access = {{ frames = "0x100..0x800", access = "rwx" }} }},
        ]
        "#
    );
    let (outcome, _) = run_under(gate, Scenario::parse(Path::new("all.toml"), text).unwrap());
    // Of others a vCPU that waits for its turn may have touched one meanwhile.
    let is_swept = |record: &&Record| match record {
        Record::Event { request, .. } => request.frame().is_some_and(|gfn| (0x800..0x1800).contains(&gfn.0)),
        _ => false,
    };
    outcome.records.iter().filter(is_swept).count() as u64
}

#[test]
fn first_touches_of_watched_memory_are_told_and_done() {
    for gate in gates() {
        // Each page once: a first touch opens it.
        assert_eq!(told(gate, 4, "n2rwx", "answer"), SWEPT, "{gate}");
        assert_eq!(told(gate, 1, "n", "relax"), SWEPT, "{gate}");
        // A page that may be read gets memory that may not be written to.
        assert_eq!(told(gate, 1, "r", "grant"), SWEPT, "{gate}");
        // Alone: each of them again and again, and the guest knows what it has written.
        assert!(told(gate, 2, "n", "emulate") >= 2 * SWEPT, "{gate}");
    }
}

/// How many frames of 256 MiB have memory after this many were watched, before the guest runs.
fn held_after(count: u64) -> u64 {
    let folder = RunFolder::create().unwrap();
    let mut scenario = scenario("n2rwx_sweep");
    scenario.machine.memory = Size(256 << 20);
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::Mmu;
    let qemu = job.machine().unwrap().start(&folder).unwrap();
    let mut client = Client::connect(&folder.file("socket")).unwrap();
    let control = Control::SetAccess { first: Gfn(0x100), count, access: AccessType::N };
    client.values(&Call::Control(control)).unwrap();
    memory_file(qemu.pid()).metadata().unwrap().blocks() * 512 / 4096
}

#[test]
fn what_is_watched_takes_no_memory_of_the_host_where_it_is_nearly_all() {
    if kernel_maps_write_protected() {
        assert!(held_after(0xff00) < 0x1000);
        // First touches of the rest are to cost nothing there.
        assert!(held_after(0x8000) >= 0x8000);
    }
}
