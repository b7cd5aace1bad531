//! Every access that QEMU reports was predicted, but for the processor's own in its tables.

use harness::run::Job;
use harness::scenario::Scenario;
use harness::scenario::corpus;
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use std::collections::BTreeSet;

/// What `verify=on` counted.
#[derive(Debug)]
struct Counts {
    matched: u64,
    in_tables: u64,
    not_predicted: u64,
}

/// Runs a scenario and compares; the counts, and all that was said.
fn verified(scenario: Scenario) -> (Counts, String) {
    let mut job = Job::new(scenario, None).unwrap();
    job.verify = true;
    job.linux_works = false;
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}: {}", job.scenario.name, outcome.verdict);
    let said = outcome.said;
    let line = said.lines().find(|line| line.contains("accesses: ")).unwrap_or_else(|| panic!("no counts: {said}"));
    let count = |what: &str| {
        let before = line.split(what).next().unwrap().trim_end();
        before.rsplit(' ').next().unwrap().parse::<u64>().unwrap_or_else(|_| panic!("no {what}: {line}"))
    };
    let counts = Counts {
        matched: count("matched"),
        in_tables: count("in the processor's own tables"),
        not_predicted: count("done but not predicted"),
    };
    (counts, said)
}

#[test]
fn every_access_of_every_built_in_scenario_is_predicted() {
    let (mut in_tables, mut matched) = (0, 0);
    let mut guests = BTreeSet::new();
    let ends_well = |scenario: &Scenario| scenario.verdict.0 == Kind::Success;
    // One scenario a guest: what instructions do is the guest's, not the scenario's.
    let first_of_its_guest = |scenario: &Scenario| guests.insert(scenario.machine.guest.clone());
    for scenario in corpus::of_built_in_guests().into_iter().filter(ends_well).filter(first_of_its_guest) {
        let name = scenario.name.clone();
        let (counts, said) = verified(scenario);
        assert_eq!(counts.not_predicted, 0, "{name}: {said}");
        assert!(counts.matched > 1_000_000, "{name}: firmware alone does more: {said}");
        // QEMU does nothing for it, so it is predicted and not done; and all that is strange is shown with its disassembly.
        if name == "operands" {
            assert!(said.contains("  clflush [rdi") && said.contains("]: no r-- of 1 bytes at 0x"), "{said}");
        }
        in_tables += counts.in_tables;
        matched += counts.matched;
    }
    assert!(in_tables > 0, "the guests load segments");
    println!("{matched} accesses matched, {in_tables} in the processor's own tables, none unforeseen");
}

#[test]
fn every_access_of_a_linux_boot_is_predicted() {
    let (counts, said) = verified(corpus::linux());
    assert_eq!(counts.not_predicted, 0, "{said}");
    println!("{counts:?}");
}
