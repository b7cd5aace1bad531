//! The engine under the flow controls of Xen's history: what a guest, its listener and its pager see of each.

mod common;

use common::{Bench, R, answer_due, slot_due, write_of_cr3};
use mem_event::{
    AccessType, Control, CpuEventKind, DomainConfig, Effect, Errno, FlowKind, Gfn, Input, MonitorMode, Outcome, Ring,
    VcpuId, With,
};

fn under(flow: FlowKind, ring: Ring, slots: u32, vcpus: u32) -> Bench {
    let mut bench = Bench::new(vcpus);
    bench.must(Control::SetFlow { ring, flow });
    bench.enable(ring, slots);
    bench
}

fn lost(bench: &Bench) -> usize {
    bench.effects.list.iter().filter(|effect| matches!(effect, Effect::Lost { .. })).count()
}

#[test]
fn the_flow_control_of_a_ring_in_use_stays_what_it_is() {
    let mut bench = under(FlowKind::CheckRing, Ring::Access, 1, 2);
    assert_eq!(bench.domain.flow(Ring::Access), FlowKind::CheckRing);
    assert_eq!(bench.refused(Control::SetFlow { ring: Ring::Access, flow: FlowKind::Queue }), Errno::EBUSY);
    bench.must(Control::Disable { ring: Ring::Access, drain: false });
    bench.must(Control::SetFlow { ring: Ring::Access, flow: FlowKind::Queue });
    assert_eq!(bench.domain.flow(Ring::Access), FlowKind::Queue);
}

#[test]
fn before_the_patch_a_full_ring_loses_the_write_of_a_register_and_no_access() {
    let mut bench = under(FlowKind::CheckRing, Ring::Access, 1, 3);
    bench.watch(3, AccessType::N);
    bench.monitor_cr3(MonitorMode::Async);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.step(&write_of_cr3(1, 0x1000)), slot_due(Ring::Access));
    assert_eq!(lost(&bench), 1);
    assert_eq!(bench.access(2, 3, R), slot_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [0, 1, 2], "one answer wakes everybody");
    assert_eq!(bench.step(&write_of_cr3(1, 0x1000)), Outcome::Proceed, "the register is written, and nobody was told");
    assert_eq!(bench.access(2, 3, R), answer_due(Ring::Access));
}

#[test]
fn by_the_patch_a_second_vcpu_that_faults_on_a_full_ring_never_runs_again() {
    let mut bench = under(FlowKind::WaitQueueV5, Ring::Access, 1, 2);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let _ = bench.access(1, 3, R);
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [0], "the wake of vCPU 1 took back one pause of two");
    assert_eq!(
        (bench.waiting(1), bench.domain.free_slots(Ring::Access)),
        (Some(mem_event::WaitReason::Slot(Ring::Access)), 0)
    );
    assert_eq!(
        bench.domain.ring(Ring::Access).outstanding.len(),
        0,
        "the ring is empty, and vCPU 1 has its request in its hands"
    );
}

#[test]
fn by_the_patch_an_event_that_pauses_nobody_waits_in_its_put_and_comes() {
    let mut bench = under(FlowKind::WaitQueueV5, Ring::Access, 1, 2);
    bench.watch(3, AccessType::N);
    bench.monitor_cr3(MonitorMode::Async);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.step(&write_of_cr3(1, 0x2000)), slot_due(Ring::Access));
    let disable = Control::Disable { ring: Ring::Access, drain: false };
    assert_eq!(bench.refused(disable), Errno::EBUSY, "somebody sleeps on the queue");
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [0, 1]);
    assert_eq!(bench.step(&write_of_cr3(1, 0x2000)), Outcome::Proceed);
    assert_eq!(bench.request(Ring::Access).vcpu, VcpuId(1));
}

#[test]
fn by_the_patch_a_dropped_frame_ruins_the_accounts_and_without_a_ring_the_host() {
    let mut bench = under(FlowKind::WaitQueueV5, Ring::Paging, 8, 2);
    (0..4).for_each(|gfn| bench.page_out(gfn));
    bench.must(Control::Drop { gfn: Gfn(0) });
    let _ = bench.access(0, 1, R);
    assert_eq!(bench.domain.ring(Ring::Paging).queue, [VcpuId(0)], "seven slots are free, and every vCPU sleeps");
    assert_eq!(bench.foreign(2, R), Outcome::Retry(Errno::EBUSY));

    let mut bench = under(FlowKind::WaitQueueV5, Ring::Paging, 8, 1);
    bench.page_out(0);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    let _ = bench.control(Control::Drop { gfn: Gfn(0) });
    assert!(bench.domain.ended().is_some_and(|why| why.contains("which is no more")));
}

#[test]
fn before_the_patch_and_since_2012_a_full_ring_loses_the_toolstacks_notice() {
    for flow in [FlowKind::CheckRing, FlowKind::Blocked2012] {
        let mut bench = under(flow, Ring::Paging, 1, 1);
        (0..2).for_each(|gfn| bench.page_out(gfn));
        assert_eq!(bench.access(0, 0, R), answer_due(Ring::Paging));
        assert_eq!(bench.control(Control::Drop { gfn: Gfn(1) }), Outcome::Proceed);
        assert_eq!(lost(&bench), 1, "{flow}: the pager keeps a frame that is no more");
    }
    let mut bench = under(FlowKind::Queue, Ring::Paging, 1, 1);
    (0..2).for_each(|gfn| bench.page_out(gfn));
    assert_eq!(bench.access(0, 0, R), answer_due(Ring::Paging));
    assert_eq!(bench.refused(Control::Drop { gfn: Gfn(1) }), Errno::EBUSY);
}

#[test]
fn since_2012_a_woken_vcpu_that_finds_its_frame_there_passes_the_wake_on() {
    let mut bench = under(FlowKind::Blocked2012, Ring::Access, 1, 3);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.access(2, 3, R), slot_due(Ring::Access));
    bench.watch(3, AccessType::Rwx);
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [1, 0]);
    assert_eq!(bench.access(1, 3, R), Outcome::Proceed, "it claims the slot, needs it no more, and gives it back");
    assert_eq!(bench.woken(), [2]);
}

#[test]
fn since_2012_a_poster_that_runs_on_is_throttled_and_disable_lets_it_go() {
    let mut bench = under(FlowKind::Blocked2012, Ring::Access, 8, 2);
    bench.monitor_cr3(MonitorMode::Async);
    for sent in 1..=6 {
        assert_eq!(bench.step(&write_of_cr3(0, sent)), Outcome::Proceed);
    }
    assert_eq!(bench.step(&write_of_cr3(0, 7)), slot_due(Ring::Access), "one slot is left for two vCPUs");
    bench.must(Control::Disable { ring: Ring::Access, drain: false });
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.step(&write_of_cr3(0, 7)), Outcome::Proceed, "that event is over");
}

#[test]
fn since_2012_a_refused_disable_has_switched_the_monitor_off_all_the_same() {
    let mut bench = under(FlowKind::Blocked2012, Ring::Access, 1, 2);
    bench.monitor_cr3(MonitorMode::Sync);
    assert_eq!(bench.step(&write_of_cr3(0, 1)), answer_due(Ring::Access));
    assert_eq!(bench.step(&write_of_cr3(1, 1)), slot_due(Ring::Access));
    let refused = bench.control(Control::Disable { ring: Ring::Access, drain: false });
    assert!(matches!(refused, Outcome::Refused(Errno::EBUSY, _)));
    assert_eq!(bench.domain.monitored(CpuEventKind::Cr3), MonitorMode::Disabled);
}

#[test]
fn a_draining_end_lets_everybody_go_under_every_flow_control() {
    for flow in FlowKind::ALL {
        let mut bench = under(flow, Ring::Access, 1, 3);
        bench.watch(3, AccessType::N);
        (0..3).for_each(|vcpu| drop(bench.access(vcpu, 3, R)));
        bench.must(Control::Disable { ring: Ring::Access, drain: true });
        let request = bench.request(Ring::Access);
        bench.answer(Ring::Access, &request);
        assert_eq!((0..3).filter_map(|vcpu| bench.waiting(vcpu)).count(), 0, "{flow}");
    }
}

#[test]
fn a_domain_under_any_flow_control_is_put_away_and_goes_on() {
    for flow in FlowKind::ALL {
        let mut bench = under(flow, Ring::Access, 1, 3);
        bench.watch(3, AccessType::N);
        (0..3).for_each(|vcpu| drop(bench.access(vcpu, 3, R)));
        let config: DomainConfig = common::config(3);
        let again = mem_event::Domain::restore(config, bench.domain.checkpoint()).unwrap();
        assert_eq!(again.state(), bench.domain.state(), "{flow}");
        assert_eq!(again.flow(Ring::Access), flow);
    }
}

#[test]
fn a_dead_listener_leaves_a_ring_of_xens_in_use_and_its_sleepers_asleep() {
    for flow in [FlowKind::CheckRing, FlowKind::WaitQueueV5, FlowKind::Blocked2012] {
        let mut bench = under(flow, Ring::Access, 1, 2);
        bench.watch(3, AccessType::N);
        (0..2).for_each(|vcpu| drop(bench.access(vcpu, 3, R)));
        let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
        assert!(bench.woken().is_empty());
        let outcome = bench.domain.apply(
            &Input::Control(Control::Enable { ring: Ring::Access, layout: mem_event::Layout::Flags32, slots: 1 }),
            With::NOTHING,
            &mut bench.effects,
        );
        assert!(matches!(outcome, Outcome::Refused(Errno::EBUSY, _)), "{flow}: {outcome:?}");
        let disable = Control::Disable { ring: Ring::Access, drain: false };
        if flow == FlowKind::CheckRing {
            bench.must(disable);
            assert!(bench.waiting(1).is_some(), "and its sleepers wait for the next enable");
        } else {
            assert_eq!(bench.refused(disable), Errno::EBUSY, "{flow}: nobody will ever answer");
        }
    }
}
