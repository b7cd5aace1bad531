//! Two gates, one meaning: what the check before an instruction stops, the host's MMU stops as well, with the same event.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::qemu::Gate;
use support::{kernel_maps_write_protected, run_under, scenario};

fn both_gates_give_the_same_sequence(name: &str) {
    if !kernel_maps_write_protected() {
        return;
    }
    let (_, by_callback) = run_under(Gate::Callback, scenario(name));
    let (_, by_mmu) = run_under(Gate::Mmu, scenario(name));
    assert_eq!(by_callback, by_mmu, "{name}: left by callback, right by the host's MMU");
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
