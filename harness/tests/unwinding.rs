//! What a vCPU stands in that the host's MMU stopped is told by QEMU's unwinding, held against the notes that its instructions leave.

use crate::support::{
    has_its_accepted_sequence_by, kernel_maps_write_protected, linux_with_a_frame_that_may, run_by_the_mmu, scenario,
};
use harness::machine::qemu::Gate;
use harness::run::Outcome;
use harness::suite::case::Settings;
use mem_event::AccessType;

/// A boot of Linux with one page watched for reads and writes, under the host's MMU.
fn linux(vcpus: u32, argument: &str) -> Outcome {
    let mut scenario = linux_with_a_frame_that_may(AccessType::X);
    scenario.machine.vcpus = vcpus;
    run_by_the_mmu(scenario, argument)
}

/// The numbers of the line in which the plugin says what the comparison came to.
fn compared(outcome: &Outcome) -> [u64; 5] {
    let line = outcome.said.lines().find(|line| line.starts_with("mem-event: places: ")).unwrap();
    eprintln!("{line}");
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    numbers.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn each_place_that_is_told_is_the_noted_instruction() {
    if !kernel_maps_write_protected() {
        return;
    }
    // How many there are in helpers, which among several vCPUs a locked access is, is chance; scenarios have them for certain.
    let outcome = linux(2, "falsify=enough");
    let [code, helper, slow_path, others, untold] = compared(&outcome);
    assert!(code > 100 && slow_path > 100, "{}", outcome.said);
    assert_eq!(others, 0, "{}", outcome.said);
    assert!(untold < (code + helper + slow_path) / 100, "{}", outcome.said);
}

#[test]
fn notes_are_given_up_once_unwinding_has_told_the_same() {
    if !kernel_maps_write_protected() {
        return;
    }
    let outcome = linux(1, "registers=auto");
    assert!(outcome.said.contains("notes no instruction any more: of "), "{}", outcome.said);
}

#[test]
fn where_it_does_not_prove_itself_notes_stay_and_a_line_says_so() {
    if !kernel_maps_write_protected() {
        return;
    }
    for (argument, why) in [
        ("falsify=unwinding", "unwinding tells an instruction at 0x"),
        ("falsify=names", "(it exports no cpu_unwind_state_data)"),
    ] {
        let outcome = run_by_the_mmu(scenario("page_cross"), argument);
        let lines = outcome.said.lines().filter(|line| line.contains("gate=mmu notes"));
        let [line] = lines.collect::<Vec<_>>()[..] else { panic!("{}", outcome.said) };
        assert!(line.contains("notes each memory instruction") && line.contains(why), "{line}");
    }
}

/// Without any note to go by.
fn unwinding_alone_gives_the_accepted_sequence(name: &str) {
    // `page_touch` sorts the times that it measured, which are others under another gate.
    if name == "page_touch" || !kernel_maps_write_protected() {
        return;
    }
    let settings = Settings { gate: Gate::Mmu, plugin: vec!["falsify=notes".into()], repeat: 1, ..Settings::default() };
    has_its_accepted_sequence_by(name, &settings);
}

include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            unwinding_alone_gives_the_accepted_sequence(stringify!($name));
        })*
    };
}

with_all_scenarios!(scenarios);
