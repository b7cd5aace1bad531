//! An instruction that is stopped over a page's end does once what it does, however often its vCPU leaves the block meanwhile.

use crate::support::{kernel_maps_write_protected, machine_by, started_by_the_loader, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::scenario::Scenario;
use mem_event::message::{Call, Notice, Stays};
use mem_event::{AccessType, Event, Gfn, Rights, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than a vCPU stays in its block where it may leave, some times over.
const HOLD: Duration = Duration::from_millis(15);
/// Only the limit of what can be called a hang.
const HANG: Duration = Duration::from_secs(60);
/// Instructions that only store.
const STORES: [u64; 2] = [19, 20];

#[test]
fn a_vcpu_leaves_where_nothing_is_written_and_stays_where_something_may_be() {
    leaves_or_stays(Path::new("qemu-system-x86_64"));
}

/// A Debian QEMU of another suite, unpacked beside its libraries, is started so.
#[test]
fn a_vcpu_leaves_as_well_where_the_dynamic_loader_started_qemu() {
    let folder = RunFolder::create().unwrap();
    if let Some(qemu) = started_by_the_loader(&folder) {
        leaves_or_stays(&qemu);
    }
}

fn leaves_or_stays(qemu: &Path) {
    if !kernel_maps_write_protected() {
        return;
    }
    let mut scenario = Scenario::bare("page_ends");
    scenario.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_by(qemu, Gate::Mmu, scenario);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    let left = job.symbols().find("ENDS").unwrap().gpa.gfn();
    let right = Gfn(left.0 + 1);
    qemu.qmp.execute("cont").unwrap();
    let [mut left_it, mut stayed] = [0u64; 2];
    while let Some((instruction, round)) = next(&mut toolstack) {
        let (closed, access) =
            [(left, AccessType::R), (right, AccessType::R), (right, AccessType::N)][(round / 3 % 3) as usize];
        toolstack.set_access(closed, access).unwrap();
        toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
        let request = loop {
            match channel.take() {
                Some(request) => break request,
                None => wait_for("the event", &channel),
            }
            channel.clear_signal();
        };
        harness::poll::readable(&qemu, Instant::now() + HOLD).unwrap();
        let Event::Violation { rights, .. } = request.event else { panic!("{request:?}") };
        let stores_alone = STORES.contains(&instruction);
        assert_eq!(rights, if stores_alone { Rights::W } else { Rights::RW }, "{instruction}");
        // A read of both pages comes before the store, and the store begins on the left one.
        let is_written = closed == right && (access == AccessType::R || stores_alone);
        let begun = Instant::now();
        let stays = loop {
            // On a busy machine the vCPU may not have been told to leave by now.
            match toolstack.vcpus().unwrap()[0].stays {
                None if is_written && begun.elapsed() < HANG => {
                    harness::poll::readable(&qemu, Instant::now() + HOLD).unwrap()
                }
                stays => break stays,
            };
        };
        assert_eq!(stays, is_written.then_some(Stays::Written), "instruction {instruction}, round {round}");
        if is_written {
            stayed += 1
        } else {
            left_it += 1
        }
        toolstack.set_access(closed, AccessType::Rwx).unwrap();
        channel.answer(&request.answer());
        channel.kick().unwrap();
    }
    drop(toolstack);
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
    assert!(left_it > 100 && stayed > 60, "{left_it} left, {stayed} stayed");
}

/// The next instruction's number, and how many there were before; `None` at the end.
fn next(toolstack: &mut Client) -> Option<(u64, u64)> {
    loop {
        match toolstack.notice().unwrap() {
            Some(Notice::Checkpoint { number: 1, arguments: [_, instruction, round], .. }) => {
                return Some((instruction, round));
            }
            Some(Notice::Checkpoint { .. }) => return None,
            _ => wait_for("the next instruction", &toolstack),
        }
    }
}
