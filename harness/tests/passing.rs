//! While some frames may not be executed, blocks of those frames are looked at before they run, and others are not: QEMU has every instruction of
//! a block that a plugin looks at leave what it read or wrote.

use crate::support::kernel_maps_write_protected;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{MemoryAct, Name, corpus};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::AccessType;

/// Of a Linux that boots while frames that it has no code in may not be executed: how many blocks were looked at, and of how many.
fn looked_at(argument: &str) -> Option<[u64; 2]> {
    let mut scenario = corpus::linux();
    scenario.consumers.listener.get_or_insert_default();
    scenario.start = vec![
        MemoryAct::SetAccess { frames: "0x800".into(), access: Name(AccessType::Rw), view: None, refused: None }.into(),
    ];
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::Mmu;
    job.plugin = vec![argument.into()];
    job.linux_works = false;
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.said);
    let line = outcome.said.lines().find(|line| line.ends_with("were looked at"))?;
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let [among, chosen] = numbers.collect::<Vec<_>>()[..] else { panic!("{line}") };
    Some([chosen, among])
}

#[test]
fn of_frames_that_may_be_executed_no_block_is_looked_at() {
    if !kernel_maps_write_protected() {
        return;
    }
    let [chosen, among] = looked_at("registers=auto").expect("a line that tells how many");
    // The first ones, by which the plugin finds its way, and those at whose begin a page ends.
    assert!(among > 10_000 && chosen < among / 20, "{chosen} of {among}");
}
