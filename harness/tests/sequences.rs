//! Each built-in scenario's sequence is as accepted in `snapshots/`, and the same in several runs in a row; each run's trace
//! replays without a difference. It is what `mem-event test snapshots --repeat 2` does.

use crate::support::{has_its_accepted_sequence, kernel_maps_write_protected};
use harness::machine::qemu::Gate;

/// `ci/soak` has twenty.
const RUNS: usize = 2;

fn the_sequence_is_accepted_and_repeats(name: &str) {
    // The processor's own writes to a page that it may read are seen only where the page is mapped so.
    if name == "interrupts" && !kernel_maps_write_protected() {
        return;
    }
    has_its_accepted_sequence(name, Gate::Callback, RUNS);
}

include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

macro_rules! sequences {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            the_sequence_is_accepted_and_repeats(stringify!($name));
        })*
    };
}

with_all_scenarios!(sequences);

#[test]
fn the_scenarios_that_show_claims_exist_and_no_claim_is_left_out() {
    let document = include_str!("../../mem-event/ACCEPTANCE.md");
    let table = document.split("## On a running guest").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    for claim in 9..=39 {
        assert!(table.contains(&format!("\n| {claim} | ")), "no line for X{claim}");
    }
    let (_, rows) = table.split_once("|---|---|").unwrap();
    for name in rows.split('`').skip(1).step_by(2).filter(|name| !name.contains('/')) {
        assert!(harness::scenario::corpus::find(name).is_some(), "there is no scenario {name}");
    }
}

#[test]
fn a_disk_that_firmware_boots_has_its_accepted_sequence() {
    the_sequence_is_accepted_and_repeats("disk_boot");
}
