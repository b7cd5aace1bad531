//! Each built-in scenario's sequence is as accepted in `snapshots/`, and the same in 20 runs in a row; each run's trace
//! replays without a difference.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use support::{kernel_maps_write_protected, run, scenario};

const RUNS: usize = 20;

fn the_sequence_is_accepted_and_repeats(name: &str) {
    // Writes that are no instruction's, to a page that may be read, are seen only where the page is mapped so.
    if matches!(name, "disk_ahci" | "interrupts") && !kernel_maps_write_protected() {
        return;
    }
    let (_, first) = run(scenario(name));
    insta::with_settings!({
        snapshot_path => "../../snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => scenario(name).title(),
    }, { insta::assert_snapshot!(name, first) });
    for number in 2..=RUNS {
        let (_, sequence) = run(scenario(name));
        assert!(sequence == first, "run {number} of {name} differs:\n{sequence}");
    }
}

macro_rules! sequences {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            the_sequence_is_accepted_and_repeats(stringify!($name));
        })*

        #[test]
        fn every_built_in_scenario_has_its_sequence() {
            let listed = [$(stringify!($name)),*];
            let all: Vec<String> = harness::corpus::of_built_in_guests().into_iter().map(|scenario| scenario.name).collect();
            assert_eq!(all, listed);
        }
    };
}

sequences!(cpu_events disk_ahci disk_virtio dma example interrupts interrupts_paged modes operands page_cross page_fault page_in page_touch privilege read_write rights self_modify smp_storm);
