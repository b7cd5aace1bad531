//! Linux held to a quarter of its memory boots, works on more than that, and powers off.

use crate::support::run;
use harness::scenario::Size;
use harness::scenario::corpus;

const TARGET: u64 = 128 << 20;

#[test]
fn linux_under_a_target_never_holds_more_and_loses_nothing() {
    let mut scenario = corpus::linux();
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
