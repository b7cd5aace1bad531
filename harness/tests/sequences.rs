//! Each built-in scenario's sequence is as accepted in `snapshots/`, and the same in several runs in a row; each run's trace
//! replays without a difference. It is what `mem-event test snapshots --repeat 4` does.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::qemu::Gate;
use support::{has_its_accepted_sequence, kernel_maps_write_protected};

/// `ci/soak` has twenty.
const RUNS: usize = 4;

fn the_sequence_is_accepted_and_repeats(name: &str) {
    // The processor's own writes to a page that it may read are seen only where the page is mapped so.
    if name == "interrupts" && !kernel_maps_write_protected() {
        return;
    }
    has_its_accepted_sequence(name, Gate::Callback, RUNS);
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
            let all: Vec<String> =
                harness::corpus::of_built_in_guests().into_iter().map(|scenario| scenario.name).collect();
            assert_eq!(all, listed);
        }
    };
}

sequences! {
    access_n2rwx access_rx2rw balloon_nominated balloon_paged control_registers_sync cpu_events cr3_changes
    cr3_sync default_access disable_busy disable_twice disk_ahci disk_virtio dma enomem_first_touch evict_fail
    evict_unasked example grant_by_steps int3_sync int3_without_ring interrupts interrupts_paged
    layout_flags16 layout_flags32 layout_vm_event7 listener_back listener_lost_unanswered map_paged
    mapped_stays modes msr_async n2rwx_crowd n2rwx_sweep n2rwx_sweep_slow no_listener_crashes
    no_listener_relaxes one_page_for_all operands out_every_round page_cross page_fault page_in page_touch
    paged_and_watched pager_back prep_unasked privilege queue_of_six_on_one read_write rights
    ring_full_65_on_64 ring_full_9_on_8 rings_apart self_modify smp_storm translations watch_again
}

#[test]
fn a_disk_that_firmware_boots_has_its_accepted_sequence() {
    the_sequence_is_accepted_and_repeats("disk_boot");
}
