//! Claims, the queue for slots, and how slots are handed over.

mod common;

use common::{Bench, R, W, answer_due, slot_due};
use mem_event::{AccessType, Control, Effect, Errno, Flags, Gfn, Input, NoConsumer, Outcome, Ring, VcpuId};

fn watched(vcpus: u32, slots: u32) -> Bench {
    let mut bench = Bench::new(vcpus);
    bench.enable(Ring::Access, slots);
    bench.watch(3, AccessType::N);
    bench
}

#[test]
fn a_full_ring_makes_a_vcpu_wait_and_tells_a_foreign_caller_to_come_back() {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Paging, 2);
    for gfn in [4, 5, 6, 7] {
        bench.page_out(gfn);
    }
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(1, 5, R), answer_due(Ring::Paging));
    let types = |bench: &Bench| [6, 7].map(|gfn| bench.domain.p2m_type(Gfn(gfn)));
    let before = types(&bench);
    assert_eq!(bench.foreign(6, R), Outcome::Retry(Errno::EBUSY));
    assert_eq!(bench.access(2, 7, R), slot_due(Ring::Paging));
    assert_eq!(types(&bench), before, "a claim that fails changes no type");
    let request = bench.requests(Ring::Paging)[0];
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.woken()[0], 2);
    assert_eq!(bench.access(2, 7, R), answer_due(Ring::Paging));
    let requests = bench.requests(Ring::Paging);
    assert_eq!(requests.iter().map(|request| request.frame()).collect::<Vec<_>>(), [Some(Gfn(7))]);
}

#[test]
fn without_a_ring_a_foreign_claim_is_enosys_and_succeeds_later() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    assert_eq!(bench.foreign(4, R), Outcome::Retry(Errno::ENOSYS));
    bench.enable(Ring::Paging, 0);
    assert!(bench.has(&Effect::RetryForeign));
    assert_eq!(bench.foreign(4, R), Outcome::Retry(Errno::ENOENT));
    assert_eq!(bench.request(Ring::Paging).flags, Flags::FOREIGN);
}

#[test]
fn a_woken_vcpu_that_needs_no_slot_gives_it_to_the_next() {
    let mut bench = watched(3, 1);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.access(2, 3, R), slot_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [1, 0]);
    // vCPU 1 took an interrupt and touches something else: no response arrives, and still the next is woken.
    assert_eq!(bench.access(1, 9, R), Outcome::Proceed);
    assert_eq!(bench.woken(), [2]);
    assert_eq!(bench.access(2, 3, R), answer_due(Ring::Access));
}

#[test]
fn a_vcpu_that_abandons_its_wait_gives_up_its_place_and_what_it_was_given() {
    let mut bench = watched(4, 1);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    for vcpu in 1..4 {
        assert_eq!(bench.access(vcpu, 3, R), slot_due(Ring::Access));
    }
    assert_eq!(bench.step(&Input::Abandon { vcpu: VcpuId(1) }), Outcome::Proceed);
    assert_eq!(bench.waiting(1), None);
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [2, 0]);
    assert_eq!(bench.step(&Input::Abandon { vcpu: VcpuId(2) }), Outcome::Proceed);
    assert_eq!(bench.woken(), [3]);
    assert_eq!(bench.step(&Input::Abandon { vcpu: VcpuId(0) }), Outcome::Proceed, "nothing to abandon");
    assert!(matches!(bench.step(&Input::Abandon { vcpu: VcpuId(9) }), Outcome::Refused(Errno::ESRCH, _)));
}

#[test]
fn a_vcpu_that_slept_for_a_slot_has_its_event_once_and_one_pause() {
    let mut bench = watched(2, 1);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, W), slot_due(Ring::Access));
    assert_eq!(bench.domain.pause_count(VcpuId(1)), 0);
    let first = bench.request(Ring::Access);
    bench.answer(Ring::Access, &first);
    assert!(bench.put().is_empty(), "an event goes out when its vCPU comes back, not before");
    assert_eq!(bench.access(1, 3, W), answer_due(Ring::Access));
    assert_eq!(bench.domain.pause_count(VcpuId(1)), 1);
    let second = bench.request(Ring::Access);
    assert_eq!((second.vcpu, second.event.rights()), (VcpuId(1), W));
    bench.answer(Ring::Access, &second);
    assert_eq!(bench.domain.pause_count(VcpuId(1)), 0);
    assert!(bench.requests(Ring::Access).is_empty());
}

#[test]
fn an_asynchronous_event_that_slept_for_a_slot_leaves_no_pause() {
    let mut bench = watched(2, 1);
    bench.watch(4, AccessType::N2rwx);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 4, W), slot_due(Ring::Access));
    assert_eq!(bench.domain.access_type(Gfn(4)), AccessType::N2rwx, "nothing changes without the claim");
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.access(1, 4, W), Outcome::Proceed);
    assert_eq!(bench.domain.pause_count(VcpuId(1)), 0);
    assert_eq!(bench.request(Ring::Access).flags, Flags::NONE);
}

#[test]
fn the_vcpu_is_paused_before_its_request_can_be_seen() {
    // A responder that answers before the put has returned to its caller: the answer finds the vCPU paused, once.
    let mut bench = watched(1, 0);
    for _ in 0..100 {
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
        assert_eq!(bench.domain.pause_count(VcpuId(0)), 1, "paused in the step that puts");
        let request = bench.request(Ring::Access);
        bench.post(Ring::Access, &request.answer());
        bench.kick(Ring::Access);
        assert_eq!((bench.domain.pause_count(VcpuId(0)), bench.waiting(0)), (0, None));
    }
}

#[test]
fn foreign_traffic_leaves_a_slot_for_the_guest() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 4);
    (0..10).for_each(|gfn| bench.page_out(gfn));
    let outcomes: Vec<Outcome> = (0..5).map(|gfn| bench.foreign(gfn, R)).collect();
    let retry = |errno| Outcome::Retry(errno);
    let enoent = || retry(Errno::ENOENT);
    assert_eq!(outcomes, [enoent(), enoent(), enoent(), retry(Errno::EBUSY), retry(Errno::EBUSY)]);
    assert_eq!(bench.access(0, 9, R), answer_due(Ring::Paging), "the fourth slot is the guest's");
}

#[test]
fn a_foreign_caller_never_takes_a_slot_that_a_vcpu_waits_for() {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Paging, 2);
    (0..6).for_each(|gfn| bench.page_out(gfn));
    assert_eq!(bench.access(0, 0, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(1, 1, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(2, 2, R), slot_due(Ring::Paging));
    assert_eq!(bench.foreign(3, R), Outcome::Retry(Errno::EBUSY));
    for request in bench.requests(Ring::Paging) {
        bench.post(Ring::Paging, &request.answer());
    }
    bench.kick(Ring::Paging);
    assert!(bench.has(&Effect::RetryForeign));
    assert_eq!(bench.foreign(3, R), Outcome::Retry(Errno::EBUSY), "one slot is promised, the other the guest's");
    assert_eq!(bench.access(2, 2, R), answer_due(Ring::Paging));
}

#[test]
fn two_waiters_and_two_freed_slots_wake_both_in_order() {
    let mut bench = watched(6, 2);
    for vcpu in 0..6 {
        let _ = bench.access(vcpu, 3, R);
    }
    for request in bench.requests(Ring::Access) {
        bench.post(Ring::Access, &request.answer());
    }
    bench.kick(Ring::Access);
    let waiters: Vec<u32> = bench.woken().into_iter().filter(|vcpu| *vcpu > 1).collect();
    assert_eq!(waiters, [2, 3]);
    // The two that were answered touch again: they stand behind those who waited longer.
    assert_eq!(bench.access(0, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.access(3, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(2, 3, R), answer_due(Ring::Access));
    let request = bench.requests(Ring::Access)[0];
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken()[0], 4);
}

/// Every vCPU touches a watched page again and again; whoever is woken looks again.
fn storm(vcpus: u32, slots: u32, layout: mem_event::Layout) {
    let mut bench = Bench::new(vcpus);
    assert_eq!(bench.try_enable(Ring::Access, layout, slots), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    let mut events = vec![0; vcpus as usize];
    let mut runnable: Vec<u32> = (0..vcpus).collect();
    for _ in 0..4 * vcpus {
        for vcpu in std::mem::take(&mut runnable) {
            assert!(matches!(bench.access(vcpu, 3, R), Outcome::Wait(_)));
        }
        let requests = bench.requests(Ring::Access);
        assert!(!requests.is_empty(), "the ring is empty and nobody is awake");
        for request in &requests {
            events[request.vcpu.0 as usize] += 1;
            bench.post(Ring::Access, &request.answer());
        }
        bench.kick(Ring::Access);
        runnable = bench.woken();
    }
    let (least, most) = events.iter().fold((i32::MAX, 0), |(least, most), count| (least.min(*count), most.max(*count)));
    assert!(most - least <= 2, "some vCPUs had {most} events, some {least}");
}

#[test]
fn more_vcpus_than_slots_never_leave_an_empty_ring_and_sleepers() {
    storm(65, 64, mem_event::Layout::Flags32);
    storm(9, 8, mem_event::Layout::VmEvent7);
    storm(8, 1, mem_event::Layout::Flags16);
}

#[test]
fn a_full_paging_ring_stops_neither_access_nor_sharing_events() {
    let mut bench = Bench::new(5);
    bench.enable(Ring::Paging, 1);
    bench.enable(Ring::Access, 1);
    bench.enable(Ring::Sharing, 1);
    bench.watch(3, AccessType::N);
    bench.page_out(4);
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(1, 4, R), slot_due(Ring::Paging));
    assert_eq!(bench.access(2, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(3, 3, R), slot_due(Ring::Access));
    let _ = bench.step(&Input::Unpopulated { first: Gfn(9), count: 1 });
    bench.must(Control::SetBudget { frames: 0 });
    assert_eq!(bench.access(4, 9, R), answer_due(Ring::Sharing));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [3, 2], "the other rings' waiters sleep on");
    assert_eq!(bench.waiting(1), Some(mem_event::WaitReason::Slot(Ring::Paging)));
}

#[test]
fn counters_are_zero_when_all_is_answered() {
    let mut bench = watched(8, 4);
    for vcpu in 0..8 {
        let _ = bench.access(vcpu, 3, R);
    }
    let relax = Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Wait };
    bench.must(relax);
    for _ in 0..8 {
        for request in bench.requests(Ring::Access) {
            bench.answer(Ring::Access, &request);
            for vcpu in bench.woken() {
                let _ = bench.access(vcpu, if vcpu == request.vcpu.0 { 9 } else { 3 }, R);
            }
        }
    }
    assert_eq!(bench.domain.free_slots(Ring::Access), 4);
    assert!((0..8).all(|vcpu| bench.waiting(vcpu).is_none()));
}

#[test]
fn a_caller_that_must_not_sleep_is_told_to_come_back_and_changes_nothing() {
    let mut bench = watched(3, 1);
    bench.watch(4, AccessType::N2rwx);
    let nosleep = |vcpu, gfn| Input::AccessNosleep { vcpu: VcpuId(vcpu), access: common::touch(gfn, R) };
    assert_eq!(bench.step(&nosleep(0, 3)), answer_due(Ring::Access), "with a slot free it is an access like any");
    assert_eq!(bench.step(&nosleep(0, 3)), answer_due(Ring::Access));
    let before = bench.domain.free_slots(Ring::Access);
    for gfn in [3, 4] {
        assert_eq!(bench.step(&nosleep(1, gfn)), Outcome::Retry(Errno::EBUSY));
        assert!(bench.waiting(1).is_none() && bench.effects.list.is_empty());
    }
    assert_eq!((bench.domain.free_slots(Ring::Access), bench.domain.access_type(Gfn(4))), (before, AccessType::N2rwx));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert!(bench.has(&Effect::RetryForeign), "it hears when there is room");
    assert_eq!(bench.step(&nosleep(1, 4)), Outcome::Proceed);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(9), count: 1 });
    bench.must(Control::SetBudget { frames: 0 });
    assert_eq!(bench.step(&nosleep(2, 9)), Outcome::Retry(Errno::ENOMEM));
    assert!(matches!(bench.step(&nosleep(7, 9)), Outcome::Refused(Errno::ESRCH, _)));
    let bad = mem_event::Access { offset: 5000, ..common::touch(9, R) };
    let refused = bench.step(&Input::AccessNosleep { vcpu: VcpuId(2), access: bad });
    assert!(matches!(refused, Outcome::Refused(Errno::EINVAL, _)));
}

#[test]
fn foreign_callers_are_called_once_and_only_if_one_waits() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 2);
    (0..4).for_each(|gfn| bench.page_out(gfn));
    let calls = |bench: &Bench| bench.effects.list.iter().filter(|effect| **effect == Effect::RetryForeign).count();
    assert_eq!(bench.foreign(0, R), Outcome::Retry(Errno::ENOENT));
    assert_eq!(bench.foreign(1, R), Outcome::Retry(Errno::EBUSY));
    assert_eq!(bench.access(0, 2, R), answer_due(Ring::Paging));
    let requests = bench.requests(Ring::Paging);
    bench.answer(Ring::Paging, &requests[0]);
    assert_eq!(calls(&bench), 1);
    bench.answer(Ring::Paging, &requests[1]);
    assert_eq!(calls(&bench), 0, "nobody was told to come back since");
}
