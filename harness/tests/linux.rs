//! Linux held to a quarter of its memory boots, works on more than that, and powers off.

use crate::support::run;
use harness::scenario::{Scenario, Size, Thread, corpus};

const TARGET: u64 = 128 << 20;

#[test]
fn linux_under_a_target_never_holds_more_and_loses_nothing() {
    holds_no_more(corpus::linux());
}

#[test]
fn linux_on_two_vcpus_of_one_thread_never_holds_more_than_its_target() {
    let mut scenario = corpus::linux();
    (scenario.machine.vcpus, scenario.machine.thread) = (2, Thread::Single);
    holds_no_more(scenario);
}

fn holds_no_more(mut scenario: Scenario) {
    scenario.machine.memory = Size(4 * TARGET);
    scenario.consumers.pager.get_or_insert_default().target = Some(Size(TARGET));
    let (outcome, _) = run(scenario);
    assert!(outcome.verdict.reason.contains("24 files, checksums right twice"), "{}", outcome.verdict);
    let (largest, samples) = outcome.resident.expect("it was measured");
    assert!(samples > 0 && largest <= TARGET, "{largest} bytes resident in {samples} samples");
    assert!(largest > TARGET / 2, "{largest} bytes: this is not the guest's memory");
    let paged = outcome.paged;
    assert!(paged.pages_in > 1000 && paged.pages_out > 1000, "{paged:?}");
    assert!(outcome.counts.sharing > 0, "no first touch waited for a frame");
}
