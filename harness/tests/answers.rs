//! What a listener does to a vCPU by its answer, as often as it likes: a function is skipped and returns what the listener says.
//!
//! `MEM_EVENT_SKIPS` says how often (`ci/soak`: more often).

use crate::support::domain::how_often;
use crate::support::{gates, run_under};
use harness::scenario::Scenario;
use std::path::Path;

/// The built-in scenario `answers` with so many calls of the function, and no writes of registers that are denied.
fn skips(times: u64, breakpoints: bool) -> Scenario {
    let stop = if breakpoints {
        // At the first byte of the function stands a breakpoint of the listener's own.
        "{ monitor = { event = \"int3\", mode = \"sync\" } }, { write = { at = \"SKIPPED\", value = \"0xcccccccccccccccc\" } }"
    } else {
        "{ set-access = { frames = \"SKIPPED\", access = \"rw\" } }"
    };
    let text = format!(
        r#"
        version = 1
        about = "Skips"
        [machine]
        guest = "answers"
        [rings.access]
        layout = "vm_event7"
        [[consumers.listener.rules]]
        frames = "SKIPPED"
        then = {{ return = 0x7777 }}
        [[steps]]
        at = 1
        do = [{stop}, {{ write = {{ at = "ROUNDS", value = {times} }} }}]
        [[steps]]
        at = 2
        do = [
            {{ expect = {{ at = "FOUND", value = {sum} }} }},
            {{ expect = {{ at = "FOUND+0x8", value = 0 }} }},
            {{ expect = {{ at = "FOUND+0x10", value = 0 }} }},
        ]
        "#,
        sum = 0x7777 * times
    );
    Scenario::parse(Path::new("skips.toml"), text).unwrap()
}

/// The scenario has what the guest must find; the trace replays.
#[test]
fn a_function_is_skipped_and_returns_another_value_ten_thousand_times_with_flags_and_stack_right() {
    let times = how_often("MEM_EVENT_SKIPS", 10_000);
    for (gate, breakpoints) in gates().into_iter().flat_map(|gate| [(gate, false), (gate, true)]) {
        let (outcome, sequence) = run_under(gate, skips(times, breakpoints));
        let answers = sequence.lines().filter(|line| line.ends_with("answer VCPU_PAUSED|SET_REGISTERS")).count();
        assert_eq!(answers as u64, times, "{gate:?}, breakpoints: {breakpoints}\n{}", outcome.console);
    }
}
