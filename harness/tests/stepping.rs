//! Single steps: told of the vCPUs that are stepped, in blocks that these have for themselves.

use crate::recoils::Recoil;
use crate::support::domain::how_often;
use crate::support::{gates, kernel_maps_write_protected, looked_at, run_by_the_mmu};
use harness::machine::qemu::Gate;
use harness::scenario::corpus;
use harness::toolstack::transcript::Record;
use mem_event::{AccessType, Control, Cpu, Event, Flags, Layout, VcpuId};
use std::collections::BTreeMap;

/// Each calls the hot function so often, in which it stands at the addition to a page that is watched; those that `is_stepped` names are stepped.
fn each_is_told_once(gate: Gate, vcpus: u32, calls: u64, is_stepped: fn(u32) -> bool) {
    let mut guest = Recoil::standing(gate, Layout::VmEvent7, vcpus, calls);
    let (hot, count) = (guest.frame("HOT"), guest.frame("COUNT"));
    let client = &mut guest.channel.client;
    client.control(Control::SetAccess { first: count, count: 1, access: AccessType::X }).unwrap().unwrap();
    for vcpu in (0..vcpus).filter(|vcpu| is_stepped(*vcpu)).map(VcpuId) {
        client.control(Control::SingleStep { vcpu, on: true }).unwrap().unwrap();
    }
    guest.goes_on();
    let (mut steps, mut additions) = (BTreeMap::<_, BTreeMap<_, u64>>::new(), 0);
    guest.serve(|guest, request| match request.event {
        Event::Cpu(Cpu::SingleStep { rip, gfn }) => {
            let of_vcpu = steps.entry(request.vcpu.0).or_default();
            if gfn == hot {
                *of_vcpu.entry(rip.0 & 0xfff).or_default() += 1;
            }
            guest.answer(request, Flags::NONE);
        }
        Event::Violation { gfn, .. } => {
            additions += u64::from(gfn == count);
            guest.answer(request, Flags::EMULATE);
        }
        // The guest's own.
        Event::Cpu(Cpu::Int3 { .. }) => {
            guest.inject(request.vcpu);
            guest.answer(request, Flags::NONE);
        }
        other => panic!("{other:?}"),
    });
    assert!(additions >= calls * u64::from(vcpus), "{gate}: {additions} additions were told");
    let (stepped, told): (Vec<u32>, Vec<_>) = steps.into_iter().unzip();
    assert_eq!(stepped, (0..vcpus).filter(|vcpu| is_stepped(*vcpu)).collect::<Vec<_>>(), "{gate}");
    for instructions in told {
        assert_eq!(instructions.keys().next(), Some(&0), "{gate}: {instructions:?}");
        assert_eq!(instructions.into_values().collect::<Vec<_>>(), [calls; 4], "{gate}, {vcpus} vCPUs");
    }
}

#[test]
fn each_step_of_one_vcpu_and_of_eight_is_told_once_where_all_are_stepped() {
    let calls = how_often("MEM_EVENT_STEPPED", 25);
    for gate in gates() {
        each_is_told_once(gate, 1, calls, |_| true);
        each_is_told_once(gate, 8, calls, |_| true);
    }
}

#[test]
fn each_step_of_a_vcpu_is_told_once_where_others_run_and_stand() {
    let calls = how_often("MEM_EVENT_STEPPED", 25);
    for gate in gates() {
        each_is_told_once(gate, 8, calls, |vcpu| vcpu == 5);
        each_is_told_once(gate, 8, calls, |vcpu| vcpu % 2 == 0);
    }
}

/// Stepped for a while, and then as before: the blocks of all are nobody's business.
#[test]
fn a_linux_that_was_stepped_runs_blocks_that_nobody_looks_at() {
    if !kernel_maps_write_protected() {
        return;
    }
    const STEPS: u64 = 3000;
    let mut scenario = corpus::linux();
    scenario.machine.vcpus = 2;
    scenario.consumers.listener.get_or_insert_default().steps = Some(STEPS);
    let outcome = run_by_the_mmu(scenario, "registers=auto");
    let mut told = BTreeMap::<_, u64>::new();
    for record in &outcome.records {
        if let Record::Event { request, .. } = record
            && matches!(request.event, Event::Cpu(Cpu::SingleStep { .. }))
        {
            *told.entry(request.vcpu.0).or_default() += 1;
        }
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), [STEPS; 2]);
    let (among, looked_at) = looked_at(&outcome.said);
    // Those of the steps, each maybe one of its own, and the first ones, by which the plugin finds its way.
    assert!(among > 20_000 && looked_at < among / 5, "{looked_at} of {among}");
}
