//! Whatever page is watched, both gates see the same: a random sample of pages, with random rights, in every built-in scenario.

use crate::support::{Random, kernel_maps_write_protected, run_under};
use harness::machine::qemu::Gate;
use harness::scenario::corpus;
use harness::scenario::{MemoryAct, Name, Rule, Scenario, Then};
use harness::toolstack::transcript::Record;
use mem_event::{AccessType, Event};
use std::collections::BTreeMap;

/// Frames in which guests have their code, data, stacks, page tables and descriptors.
const IMAGE: std::ops::Range<u64> = 0x100..0x600;
/// One in so many is watched.
const ONE_IN: u64 = 3;
/// Samples a scenario.
const SAMPLES: usize = 2;
const RIGHTS: [AccessType; 5] = [AccessType::N, AccessType::R, AccessType::Rw, AccessType::Rx, AccessType::X];

/// The scenario, and before the guest's first instruction a sample of its frames loses rights.
fn sampled(mut scenario: Scenario, seed: u64) -> Scenario {
    let mut random = Random(seed);
    for gfn in IMAGE {
        if random.below(ONE_IN) == 0 {
            let access = RIGHTS[usize::try_from(random.below(5)).unwrap()];
            scenario.start.push(
                MemoryAct::SetAccess {
                    frames: format!("{gfn:#x}").as_str().into(),
                    access: Name(access),
                    view: None,
                    refused: None,
                }
                .into(),
            );
        }
    }
    let rules = &mut scenario.consumers.listener.get_or_insert_default().rules;
    // What rules expect to see, and when they write, holds only if the page is watched by nothing else. And one that closes a page for another
    // gets nowhere where an instruction needs both.
    let is_timed = |act: &MemoryAct| {
        matches!(act, MemoryAct::Expect { .. } | MemoryAct::Write { .. } | MemoryAct::SetAccess { .. })
    };
    if rules.iter().flat_map(|rule| &rule.acts).any(is_timed) {
        rules.clear();
    }
    // Each further right is asked for by an event of its own, but where the scenario has its own rules.
    rules.push(Rule { then: Then::Grant, ..Rule::default() });
    scenario
}

/// The rights that each page was used with. Which vCPU comes first to a page that several use is chance, and so is whether its rights are
/// asked for one by one.
fn used(records: &[Record]) -> BTreeMap<u64, u8> {
    let mut used = BTreeMap::new();
    for record in records {
        if let Record::Event { request, .. } = record {
            *used.entry(request.event.subject()).or_default() |= request.event.rights().bits();
        }
    }
    used
}

#[test]
fn a_random_sample_of_pages_is_seen_alike_by_both_gates() {
    if !kernel_maps_write_protected() {
        return;
    }
    let (mut events, mut without_address) = (0, 0);
    // `page_touch` sorts the times that it measured: what its stack sees is chance. And so is whether a disk or the vCPU that waits
    // for it comes first to a page that both use.
    // One scenario a guest, that of its name: the others arrange consumers in ways that a further watched page upsets.
    // Nor one whose listener answers otherwise than with rights, or that injects: on further pages it does so too, and as often as they are used.
    let by_rights =
        |rule: &Rule| matches!(rule.then, Then::Relax | Then::Grant | Then::Set(_) | Then::Answer | Then::Silence);
    let repeats = |scenario: &Scenario| {
        let mut rules = scenario.consumers.listener.iter().flat_map(|it| &it.rules);
        rules.all(by_rights)
            && scenario.name != "injected"
            && scenario.name == scenario.machine.guest
            && scenario.name != "page_touch"
            && scenario.machine.disk.is_none()
    };
    let all: Vec<Scenario> = corpus::of_built_in_guests().into_iter().filter(repeats).collect();
    for (seed, scenario) in (1..).zip(all.iter().cycle().take(SAMPLES * all.len())) {
        let (name, vcpus) = (scenario.name.clone(), scenario.machine.vcpus);
        let (seen, by_callback) = run_under(Gate::Callback, sampled(scenario.clone(), seed));
        let (also_seen, by_mmu) = run_under(Gate::Mmu, sampled(scenario.clone(), seed));
        if vcpus == 1 {
            assert_eq!(by_callback, by_mmu, "{name}, sample {seed}: left by callback, right by the host's MMU");
        } else {
            assert_eq!(used(&seen.records), used(&also_seen.records), "{name}, sample {seed}");
        }
        for record in &seen.records {
            if let Record::Event { request, .. } = record {
                events += 1;
                let is_known = matches!(request.event, Event::Violation { gla: Some(_), .. } | Event::Cpu(_));
                without_address += u64::from(!is_known);
            }
        }
    }
    println!("{events} events, {without_address} of them without a linear address");
    assert!(without_address > 50 && events > 500, "{events} events, {without_address} without a linear address");
}
