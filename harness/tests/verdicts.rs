//! What a run's verdict says: the worst that came, with its reason.

use crate::support::{machine, scenario};
use harness::guest::symbols::Symbols;
use harness::machine::process::Qemu;
use harness::run::{Job, attach};
use harness::scenario::{MemoryAct, Scenario};
use harness::toolstack::log::{Observer, Silent};
use harness::toolstack::transcript::{Point, Record};
use harness::verdict::{Kind, Verdict};
use mem_event::spin::Spin;

#[test]
fn a_guest_that_skips_says_why_whatever_it_did_not_reach() {
    let mut many = scenario("smp_storm");
    many.machine.vcpus = 9;
    let outcome = Job::new(many, None).unwrap().run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.to_string(), "skip: 9 vCPUs; a storm has 1 to 8");
}

/// Somebody else's QEMU, which goes on when the consumers have joined it.
struct Elsewhere {
    qemu: Qemu,
    /// It is killed where the guest comes to its first checkpoint.
    dies: bool,
}

impl Observer for Elsewhere {
    fn record(&mut self, _: &Record, _: &Symbols) {}

    fn stopped(&mut self, _: Point, _: [u64; 3]) {
        if self.dies {
            self.qemu.kill();
        }
    }

    fn attached(&mut self, _: u32) {
        self.qemu.qmp.execute("cont").unwrap();
    }
}

/// The verdict of a scenario in somebody else's QEMU.
fn attached(scenario: Scenario, dies: bool) -> Verdict {
    let (qemu, folder, job) = machine(scenario);
    let (mut scenario, symbols) = (job.scenario.clone(), job.symbols());
    let socket = folder.file("socket");
    attach::attach(&socket, &mut scenario, &symbols, &mut Elsewhere { qemu, dies }, None, (Spin::Auto, None))
        .unwrap()
        .verdict
}

#[test]
fn an_expectation_that_does_not_hold_fails_an_attached_run_too() {
    let mut read_write = scenario("read_write");
    assert_eq!(attached(read_write.clone(), false).kind, Kind::Success);
    for rule in &mut read_write.consumers.listener.as_mut().unwrap().rules {
        for act in &mut rule.acts {
            if let MemoryAct::Expect { value, .. } = act {
                value.0 += 1;
            }
        }
    }
    let verdict = attached(read_write, false);
    assert_eq!(verdict.kind, Kind::Failure, "{verdict}");
    assert!(verdict.reason.contains("WATCHED+0x20") && verdict.reason.contains("WATCHED+0x30"), "{verdict}");
}

#[test]
fn a_qemu_that_was_killed_is_no_success_for_those_who_were_attached_to_it() {
    let verdict = attached(scenario("read_write"), true);
    assert_eq!(verdict.kind, Kind::Crash, "{verdict}");
    assert!(verdict.reason.contains("without a word"), "{verdict}");
}
