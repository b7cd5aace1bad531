//! What arming leaves behind in translated blocks: nothing.

use crate::support::{machine, scenario, wait_for};
use harness::machine::qmp::Qmp;
use mem_event::message::{Call, Notice};
use mem_event_client::Client;
use std::time::{Duration, Instant};

/// Only the limit of what can be called a hang.
const HANG: Duration = Duration::from_secs(60);

/// How often QEMU has dropped all its blocks.
fn flushes(qmp: &mut Qmp) -> u64 {
    let jit = qmp.execute("x-query-jit").unwrap();
    let text = jit["human-readable-text"].as_str().unwrap();
    let count = text.lines().find_map(|line| line.strip_prefix("TB flush count")).expect("QEMU counts them");
    count.trim().parse().unwrap()
}

/// A guest's first blocks compare the registers in place with the API. They went on with it until another change dropped them.
#[test]
fn blocks_that_compare_registers_are_dropped_once_the_registers_are_proven() {
    let (mut qemu, folder, _job) = machine(scenario("read_write"));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let before = flushes(&mut qemu.qmp);
    qemu.qmp.execute("cont").unwrap();
    while !matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { .. })) {
        wait_for("the first checkpoint", &toolstack);
    }
    // Nothing is watched, and nothing happens.
    let until = Instant::now() + HANG;
    while flushes(&mut qemu.qmp) == before {
        assert!(Instant::now() < until, "blocks that compare registers are still there");
        std::thread::yield_now();
    }
}
