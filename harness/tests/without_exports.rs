//! Every built-in scenario in a QEMU that exports nothing besides the plugin API, as one that is built by hand without modules: what can be
//! right is right under both gates, and what is not is listed with the ability that is missing.

use crate::support::{judged, once_under};
use harness::machine::qemu::Gate;
use harness::suite::{self, case::Settings};
use std::path::Path;

/// What is otherwise there, under both gates, and the row of the table of capabilities that says why.
const OTHERWISE: [(&str, &str); 12] = [
    // No exception can be raised from outside.
    ("injected", "injecting"),
    // Nothing is told before it is delivered.
    ("debug_exceptions", "deliveries"),
    ("next_interrupt", "deliveries"),
    // Of a register whose old value is not known each write may change it.
    ("cpu_events", "MSRs"),
    ("msr_async", "MSRs"),
    // Whether paging is nested.
    ("nested", "fields"),
    // What `xsave` writes beyond the legacy region, bounds.
    ("operands", "fields"),
    // What protection keys forbid.
    ("privilege", "protection keys"),
    // Code that a consumer overwrites runs on as it was, which a line says.
    ("overwritten", "dropping a frame's blocks"),
    // A frame that shows another one's memory is refused.
    ("hidden_breakpoint", "one instruction alone"),
    ("hidden_code", "one instruction alone"),
    // Who made a break is read from the vCPU's registers, out of its block.
    ("break_by_frame", "pausing"),
];

fn is_right_or_otherwise_for_a_reason(name: &str) {
    // `page_touch` sorts the times that it measured. Where registers cannot be set, the function that `answers` skips, and the `cpuid` of `exits`, is asked for until the
    // deadline.
    if ["page_touch", "answers", "exits"].contains(&name) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots").join(format!("{name}.toml"));
    let cases = suite::cases(&[path]).unwrap();
    for gate in [Gate::Callback, Gate::Mmu] {
        if gate == Gate::Mmu && !crate::support::kernel_maps_write_protected() {
            continue;
        }
        let settings = Settings { plugin: vec!["falsify=names".into()], ..once_under(gate) };
        let (_, wrong) = judged(&cases[0], &settings);
        match OTHERWISE.iter().find(|(otherwise, _)| *otherwise == name) {
            None => assert!(wrong.is_none(), "{}", wrong.unwrap_or_default()),
            // What has become right does not belong into the list.
            Some((_, row)) => assert!(wrong.is_some(), "{name}, {gate:?} is right without {row}"),
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            is_right_or_otherwise_for_a_reason(stringify!($name));
        })*
    };
}

with_all_scenarios!(scenarios);
