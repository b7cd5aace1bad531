//! Before means before: what a consumer does while the vCPU is stopped comes before the access.

use crate::support::{run, scenario};
use harness::guest::symbols::Symbols;
use harness::toolstack::transcript::Record;
use mem_event::{Event, Rights, Ring};

/// What the listener did on the only event on `WATCHED` that asked for these rights.
fn done_on(records: &[Record], wanted: Rights, offset: u16) -> Vec<String> {
    let fitting = records.iter().filter_map(|record| match record {
        Record::Event { ring: Ring::Access, request, done, .. }
            if matches!(request.event, Event::Violation { offset: at, rights, .. } if (at, rights) == (offset, wanted)) =>
        {
            Some(done.iter().map(|doing| doing.words(request.frame(), &Symbols::default())).collect())
        }
        _ => None,
    });
    let fitting: Vec<Vec<String>> = fitting.collect();
    assert_eq!(fitting.len(), 1, "one event asks for {wanted} at {offset:#x}");
    fitting[0].clone()
}

#[test]
fn a_read_sees_what_the_consumer_wrote_while_the_vcpu_was_stopped() {
    let (outcome, _) = run(scenario("read_write"));
    assert_eq!(done_on(&outcome.records, Rights::R, 0x10)[0], "write 0x1122334455667788 at WATCHED+0x10");
    assert!(outcome.console.contains("read 0x1122334455667788"), "{}", outcome.console);
}

#[test]
fn a_stopped_write_has_not_changed_the_page() {
    // The scenario fails if the page holds anything else than before the write.
    let (outcome, _) = run(scenario("read_write"));
    assert_eq!(done_on(&outcome.records, Rights::W, 0x20)[0], "see 0xaaaaaaaaaaaaaaaa at WATCHED+0x20");
}

#[test]
fn a_stopped_addition_adds_to_what_the_consumer_wrote() {
    let (outcome, _) = run(scenario("read_write"));
    let done = done_on(&outcome.records, Rights::RW, 0x30);
    assert_eq!(done[..2], ["see 0x4000 at WATCHED+0x30", "write 0x1000 at WATCHED+0x30"]);
    assert!(outcome.console.contains("0x1000"), "{}", outcome.console);
}

#[test]
fn an_expectation_that_does_not_hold_is_a_failure() {
    let mut wrong = scenario("read_write");
    for rule in &mut wrong.consumers.listener.as_mut().unwrap().rules {
        for act in &mut rule.acts {
            if let harness::scenario::MemoryAct::Expect { value, .. } = act {
                value.0 += 1;
            }
        }
    }
    let job = harness::run::Job::new(wrong, None).expect("a guest and a QEMU");
    let outcome = job.run(&mut harness::toolstack::log::Silent, None).expect("a verdict");
    assert_eq!(outcome.verdict.kind, harness::verdict::Kind::Failure);
    assert!(outcome.verdict.reason.contains("where 0xaaaaaaaaaaaaaaab is due"), "{}", outcome.verdict);
}
