//! Linux on a machine that counts instructions does the same in each run, to the last event.

use crate::support::{kernel_maps_write_protected, run_under};
use harness::machine::qemu::Gate;
use harness::refusal::Refusal;
use harness::scenario::Scenario;
use similar::TextDiff;
use std::path::Path;

/// A boot without work; every frame that it touches is told of once, by the first access.
const BOOT: &str = r#"
version = 1
about = "Linux, counted"
deadline = "120s"
start = [
    { set-access = { frames = "0x0..0xa0", access = "n2rwx" } },
    { set-access = { frames = "0x100..0x8000", access = "n2rwx" } },
]
[machine]
guest = "linux"
memory = "128M"
icount = 2
append = "mem_event.work=none"
[[consumers.listener.rules]]
then = "answer"
"#;

fn scenario(text: String) -> Result<Scenario, Refusal> {
    Scenario::parse(Path::new("boot.toml"), text)
}

/// Where the kernel allows, the second boot is under the other gate: also what stops the accesses makes no difference.
#[test]
fn two_boots_of_linux_touch_the_same_frames_in_the_same_order_by_the_same_accesses() {
    two_boots_are_the_same(BOOT);
}

/// They run by turns, whose ends instructions count too.
#[test]
fn two_boots_of_linux_on_two_vcpus_touch_the_same_frames_in_the_same_order_by_the_same_accesses() {
    two_boots_are_the_same(&BOOT.replace("icount = 2", "icount = 2\nvcpus = 2"));
}

fn two_boots_are_the_same(text: &str) {
    let boot = |gate| run_under(gate, scenario(text.to_owned()).unwrap());
    let other = if kernel_maps_write_protected() { Gate::Mmu } else { Gate::Callback };
    let ((outcome, first), (_, second)) = std::thread::scope(|scope| {
        let second = scope.spawn(|| boot(other));
        (boot(Gate::Callback), second.join().unwrap())
    });
    assert!(outcome.counts.access > 10_000, "{} events", outcome.counts.access);
    // What a device touches from another thread of QEMU's comes when that thread runs, which no instruction counts.
    let of = |text: &str, foreign| {
        let is_of = |line: &&str| line.contains("FOREIGN") == foreign;
        text.lines().filter(is_of).collect::<Vec<_>>().join("\n")
    };
    for foreign in [false, true] {
        let (first, second) = (of(&first, foreign), of(&second, foreign));
        let differences = TextDiff::from_lines(&first, &second);
        assert!(first == second, "{}", differences.unified_diff().context_radius(1));
    }
}
