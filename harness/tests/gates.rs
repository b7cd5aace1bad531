//! Two gates, one meaning: what the check before an instruction stops, the host's MMU stops as well, with the same event.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::qemu::Gate;
use support::{has_its_accepted_sequence, kernel_maps_write_protected};

fn both_gates_give_the_same_sequence(name: &str) {
    if !kernel_maps_write_protected() {
        return;
    }
    // The accepted sequence is that of `gate=callback`, which tests/sequences.rs compares.
    has_its_accepted_sequence(name, Gate::Mmu, 1);
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            both_gates_give_the_same_sequence(stringify!($name));
        })*
    };
}

scenarios!(cpu_events disk_ahci disk_virtio dma example interrupts interrupts_paged modes operands page_cross page_fault page_in privilege);
scenarios!(read_write rights self_modify smp_storm);
