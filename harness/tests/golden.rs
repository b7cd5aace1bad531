//! Accepted traces, which every later engine must replay without a difference. A change of the engine or of the format shows here.
//!
//! They are recorded anew, after a change that is meant, with
//! `MEM_EVENT_GOLDEN=write cargo test --release -p mem-event-harness --test full_system golden::`.

use crate::support::scenario;
use harness::machine::folder::RunFolder;
use harness::run::Job;
use harness::toolstack::log::Silent;
use harness::trace::replay::replay_file;
use mem_event::trace::{Context, Player, Remark, Remarked, Writer};
use std::path::{Path, PathBuf};

const NAMES: [&str; 4] = ["read_write", "page_in", "cpu_events", "smp_storm"];
/// So many steps lie between two states: each trace has some.
const STATES: u64 = 100;

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/traces").join(name).with_extension("trace")
}

/// Records a scenario, without what its header tells of the machine that it ran on, and with more states.
fn write(name: &str) {
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario(name), None).unwrap();
    job.trace = Some(folder.file("trace"));
    job.run(&mut Silent, None).unwrap();
    let mut player = Player::open(folder.file("trace")).unwrap();
    let mut header = player.header().clone();
    header.facts.retain(|(fact, _)| fact == "gate");
    header.qemu = header.qemu.split(' ').next().unwrap_or_default().to_owned();
    std::fs::create_dir_all(place(name).parent().unwrap()).unwrap();
    let mut writer = Writer::create(place(name), &header).unwrap();
    writer.put_states_every(STATES);
    while let Some(step) = player.forward().unwrap() {
        let after = player.number() - 1;
        put_remarks(&mut player, after, &mut writer);
        let context = Context { time: step.time, code: &step.code, connection: step.connection };
        writer.record(context, &step.input, &step.outcome, &step.effects);
        if writer.wants_state() || player.number() == player.len() {
            writer.keep(player.domain());
        }
    }
    let after = player.len();
    put_remarks(&mut player, after, &mut writer);
    writer.finish().unwrap();
}

/// What stands after a step, without what it tells of the machine.
fn put_remarks(player: &mut Player, after: u64, writer: &mut Writer) {
    for Remarked { time, mut remark } in player.tape().remarks(after).unwrap() {
        if let Remark::Came { process, user, .. } = &mut remark {
            (*process, *user) = (0, 0);
        }
        writer.remark(time, &remark);
    }
}

#[test]
fn accepted_traces_replay_without_a_difference() {
    let anew = std::env::var_os("MEM_EVENT_GOLDEN").is_some_and(|it| it == "write");
    for name in NAMES {
        if anew {
            write(name);
        }
        let replayed = replay_file(&place(name), false).unwrap_or_else(|refusal| {
            panic!("{name}: {refusal}; if the change is meant: MEM_EVENT_GOLDEN=write cargo test … --test full_system golden::")
        });
        assert_eq!(replayed.exit_code(), 0, "{name}: {}", replayed.report());
        assert!(replayed.end.unwrap().states > 0, "{name}: no state was compared");
    }
}
