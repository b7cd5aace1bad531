//! What is kept for each translation is given back when QEMU drops its translations: a guest that rewrites its code again and again
//! makes QEMU and the plugin hold no more in the end than early on.
//!
//! `MEM_EVENT_TRANSLATIONS` says how many times the code is translated anew (`ci/soak`: a million).

use crate::support::domain::how_often;
use crate::support::{Stop, machine, next_checkpoint, own_memory};
use harness::scenario::Scenario;
use mem_event::message::Call;
use mem_event::{AccessType, Gfn};
use mem_event_client::Client;
use std::time::{Duration, Instant};

/// Rewrites between two checkpoints.
const ROUND: u64 = 5000;
/// A frame that nobody touches. While it is watched, memory instructions are checked.
const ASIDE: Gfn = Gfn(0x3000);
/// The plugin takes its checks out, and with them all translations, when nothing has happened for a tenth of a second.
const IDLE: Duration = Duration::from_millis(300);
/// What a heap may grow by: blocks that fit nothing else.
const GROWTH: u64 = 8 << 20;

#[test]
fn memory_stays_flat_however_often_code_is_translated() {
    let rounds = how_often("MEM_EVENT_TRANSLATIONS", 8 * ROUND) / ROUND;
    let mut rewrite = Scenario::bare("rewrite");
    rewrite.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine(rewrite);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let (begun, mut done, mut held) = (Instant::now(), 0, Vec::new());
    // Its last checkpoint is another.
    while let Stop { vcpu, number: 1, .. } = next_checkpoint(&mut toolstack) {
        if done == 0 {
            let more = job.symbols().find("MORE").unwrap().gpa.gfn();
            let bytes = rounds.to_le_bytes().to_vec();
            toolstack.values(&Call::WriteFrame { gfn: more, offset: 0, bytes }).unwrap();
        } else {
            toolstack.set_access(ASIDE, AccessType::Rwx).unwrap();
            harness::poll::readable(&qemu, Instant::now() + IDLE).unwrap();
        }
        held.push(own_memory(qemu.pid()));
        toolstack.set_access(ASIDE, AccessType::N).unwrap();
        toolstack.values(&Call::Release { vcpu }).unwrap();
        done += 1;
    }
    assert_eq!(done, rounds);
    let (early, late) = (held[held.len() / 4], held[held.len() - 1]);
    println!(
        "{} translations of rewritten code in {:.1?}; QEMU's own memory {early} bytes after a quarter, {late} at the end",
        done * ROUND,
        begun.elapsed()
    );
    assert!(late <= early + GROWTH, "QEMU's own memory: {held:?}");
    drop(qemu);
}
