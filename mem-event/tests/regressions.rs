//! Bugs that Xen had, one test each, with the cause above it. Commits are those of the public Xen tree.

mod common;

use common::{Bench, FRAMES, R, W, answer_due, config, consumer_due, slot_due};
use mem_event::{
    AccessType, Control, CpuEvent, CpuEventKind, DomainConfig, Effect, Effects, Errno, Flags, Gfn, Gla, Input, Layout,
    MonitorMode, NoConsumer, Outcome, P2mType, Response, Ring, RingPage, VcpuId, WaitReason, With,
};

/// 46d0343de0: the ring was checked against a threshold and not reserved, so many vCPUs overran it.
#[test]
fn r1_many_vcpus_never_overrun_the_ring() {
    let mut bench = Bench::new(200);
    bench.enable(Ring::Access, 4);
    bench.watch(3, AccessType::N);
    let outcomes: Vec<Outcome> = (0..200).map(|vcpu| bench.access(vcpu, 3, R)).collect();
    assert!(outcomes[..4].iter().all(|outcome| *outcome == answer_due(Ring::Access)));
    assert!(outcomes[4..].iter().all(|outcome| *outcome == slot_due(Ring::Access)));
    let vcpus: Vec<u32> = bench.requests(Ring::Access).iter().map(|request| request.vcpu.0).collect();
    assert_eq!(vcpus, [0, 1, 2, 3], "nothing was overwritten");
}

/// 7c4c4b9c33: one-way requests were never answered, and the guest stalled after 64 drops. Every request holds its slot until an
/// answer, and an answer of any kind gives it back.
#[test]
fn r3_every_request_has_an_answer_and_every_answer_frees_a_slot() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 2);
    for gfn in 0..20 {
        bench.page_out(gfn);
        assert_eq!(bench.step(&Input::Balloon { vcpu: VcpuId(0), gfn: Gfn(gfn) }), Outcome::Proceed);
        let request = bench.request(Ring::Paging);
        let flags = if gfn % 2 == 0 { Flags::DUMMY } else { request.flags };
        bench.respond(Ring::Paging, &Response { flags, ..request.answer() });
        assert_eq!(bench.domain.free_slots(Ring::Paging), 2);
    }
}

/// 3643a96119: on a full ring, register events and drop events were lost.
#[test]
fn r4_a_full_ring_loses_neither_register_nor_drop_events() {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Paging, 1);
    bench.page_out(1);
    bench.page_out(2);
    assert_eq!(bench.access(0, 1, R), answer_due(Ring::Paging));
    let balloon = Input::Balloon { vcpu: VcpuId(1), gfn: Gfn(2) };
    assert_eq!(bench.step(&balloon), slot_due(Ring::Paging));
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.step(&balloon), Outcome::Proceed);
    assert_eq!(bench.request(Ring::Paging).flags, Flags::DROP_PAGE);
}

/// SEED `mem_sharing_alloc_page`: the vCPU was paused before anybody looked whether there is a ring.
#[test]
fn r5_no_memory_and_no_ring_pauses_nobody_for_ever() {
    let mut bench = Bench::new(1);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(4), count: 1 });
    bench.must(Control::SetBudget { frames: 0 });
    assert_eq!(bench.access(0, 4, W), Outcome::Wait(WaitReason::Frame));
    assert_eq!(bench.domain.pause_count(VcpuId(0)), 0);
    bench.must(Control::SetBudget { frames: FRAMES });
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 4, W), Outcome::Proceed);
}

/// 151d4bf8d6: one response was consumed for each RESUME, whether or not there was one.
#[test]
fn r6_resume_takes_what_is_there_and_only_that() {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Access, 4);
    bench.watch(3, AccessType::N);
    bench.must(Control::Resume { ring: Ring::Access });
    assert!(bench.effects.list.is_empty());
    for vcpu in 0..3 {
        assert_eq!(bench.access(vcpu, 3, R), answer_due(Ring::Access));
    }
    for request in bench.requests(Ring::Access) {
        bench.post(Ring::Access, &request.answer());
    }
    bench.must(Control::Resume { ring: Ring::Access });
    assert_eq!(bench.woken(), [0, 1, 2]);
    assert_eq!(bench.domain.free_slots(Ring::Access), 4);
}

/// 282ea217a7: a claim was counted as foreign and released as the guest's, and the sum of free slots went below zero.
#[test]
fn r7_a_claim_is_given_back_to_the_account_it_was_made_on() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 4);
    (0..8).for_each(|gfn| bench.page_out(gfn));
    for round in 0..50 {
        let gfn = round % 4;
        // Foreign and guest in turn, on a ring that is now empty, now full: the invariants are checked at each step.
        let _ = bench.foreign(gfn, R);
        let _ = bench.access(0, gfn + 4, R);
        let _ = bench.access(1, gfn, W);
        let _ = bench.foreign(gfn + 4, W);
        for request in bench.requests(Ring::Paging) {
            let _ = bench.prep(request.event.subject());
            bench.answer(Ring::Paging, &request);
        }
        for gfn in 0..8 {
            let _ = bench.control(Control::Nominate { gfn: Gfn(gfn) });
            let _ = bench.control(Control::Evict { gfn: Gfn(gfn) });
        }
    }
    for request in bench.requests(Ring::Paging) {
        bench.answer(Ring::Paging, &request);
    }
    assert_eq!(bench.domain.free_slots(Ring::Paging), 4);
}

/// 2981fb7d9d: access events paused first and claimed later. On a full ring of 8 slots the ninth vCPU was paused twice, and one wake
/// was not enough.
#[test]
fn r12_a_vcpu_that_waits_for_a_slot_is_not_paused_for_its_event_too() {
    let mut bench = Bench::new(9);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    for vcpu in 0..8 {
        assert_eq!(bench.access(vcpu, 3, R), answer_due(Ring::Access));
    }
    assert_eq!(bench.access(8, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.domain.pause_count(VcpuId(8)), 0);
    let requests = bench.requests(Ring::Access);
    bench.answer(Ring::Access, &requests[0]);
    assert_eq!(bench.access(8, 3, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!((bench.waiting(8), bench.domain.pause_count(VcpuId(8))), (None, 0));
}

/// 3643a96119 to 4.7: a monitored INT3 without a ring was "handled", and the guest executed it for ever.
#[test]
fn r14_a_breakpoint_without_a_ring_is_not_handled() {
    let mut bench = Bench::new(1);
    let kind = CpuEventKind::Int3;
    bench.must(Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false });
    let event = CpuEvent { kind, value: 0, old: 0, number: 0, rip: Gla(0x1000), gfn: Gfn(1) };
    let input = Input::CpuEvent { vcpu: VcpuId(0), event };
    assert_eq!(bench.step(&input), Outcome::Proceed);
    bench.enable(Ring::Access, 0);
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    assert_eq!(bench.step(&input), Outcome::Proceed);
}

/// 15e4dd5e86, 24fdd3da8a: put and cancel went on with a ring that had been disabled in between.
#[test]
fn r19_a_ring_that_ended_meanwhile_takes_neither_put_nor_cancel() {
    for comes_back_for_it in [true, false] {
        let mut bench = Bench::new(2);
        bench.enable(Ring::Access, 1);
        bench.watch(3, AccessType::N);
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
        assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
        let request = bench.request(Ring::Access);
        bench.answer(Ring::Access, &request);
        bench.must(Control::Disable { ring: Ring::Access, drain: false });
        // vCPU 1 was promised a slot of the ring that is gone.
        let outcome = bench.access(1, if comes_back_for_it { 3 } else { 9 }, R);
        assert_eq!(outcome, if comes_back_for_it { consumer_due(Ring::Access) } else { Outcome::Proceed });
        assert!(bench.put().is_empty());
    }
}

/// 55121cdb79, bd7d40443f, 6b54b24f37: a second populate or resume clobbered a frame that had just come.
#[test]
fn r22_a_second_load_or_resume_leaves_the_frame_that_came() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(1, 7, R), answer_due(Ring::Paging));
    let requests = bench.requests(Ring::Paging);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    bench.answer(Ring::Paging, &requests[0]);
    assert_eq!(bench.access(0, 7, W), Outcome::Proceed, "vCPU 0 writes to the frame");
    assert_eq!(bench.refused(Control::Prep { gfn: Gfn(7), buffer: true }), Errno::ENOENT);
    bench.answer(Ring::Paging, &requests[1]);
    assert!(!bench.has(&Effect::Fill(Gfn(7))) && !bench.has(&Effect::Map(Gfn(7))));
}

/// c411a2bcbc, 1c637370b5: a foreign touch of a nominated frame was not answered, or its answer ignored, and the frame stayed
/// on its way in for ever.
#[test]
fn r24_a_foreign_touch_of_a_nominated_frame_does_not_leave_it_stuck() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Nominate { gfn: Gfn(7) });
    assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamRw);
    assert_eq!(bench.domain.free_slots(Ring::Paging), 64);
    bench.page_out(7);
}

/// 26a5c829c8, 30cc607d39: between prep and the content a mapper saw an uninitialised page.
#[test]
fn r25_nobody_sees_a_frame_between_prep_and_its_content() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
    let request = bench.request(Ring::Paging);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    assert_eq!(bench.access(1, 7, R), answer_due(Ring::Paging));
    assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
    assert!(bench.domain.rights().allowed(Gfn(7)).is_empty());
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.foreign(7, R), Outcome::Proceed);
}

/// 91279d9f23, 58fdfc4602: the count of frames with the pager drifted, by loads of frames that had never left.
#[test]
fn r27_the_count_of_paged_frames_does_not_drift() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    for _ in 0..10 {
        bench.must(Control::Nominate { gfn: Gfn(7) });
        assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
        assert_eq!(bench.prep(7), Outcome::Proceed, "a content that is not needed");
        let request = bench.request(Ring::Paging);
        bench.answer(Ring::Paging, &request);
        bench.page_out(7);
        assert_eq!(bench.domain.info().paged, 1);
        assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
        assert_eq!(bench.prep(7), Outcome::Proceed);
        assert_eq!(bench.domain.info().paged, 0);
        let request = bench.request(Ring::Paging);
        bench.answer(Ring::Paging, &request);
    }
    bench.page_out(7);
    bench.must(Control::Drop { gfn: Gfn(7) });
    assert_eq!(bench.domain.info().paged, 0);
}

/// 90e88dbae3: a vCPU of a crashed domain faulted again and again.
#[test]
fn r30_a_crashed_domain_makes_no_further_event() {
    let mut bench = Bench::new(2);
    bench.must(Control::SetNoConsumer { ring: Ring::Paging, policy: NoConsumer::Crash });
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    assert_eq!(bench.access(0, 7, R), Outcome::Crashed);
    for _ in 0..3 {
        assert_eq!(bench.access(0, 7, R), Outcome::Crashed);
        assert_eq!(bench.access(1, 7, R), Outcome::Crashed);
        assert!(bench.effects.list.is_empty(), "it crashed once");
    }
}

/// b2b39f76e6, 88267ccbbf: the pager could not see that a load failed for want of memory, and died.
#[test]
fn r32_a_load_without_memory_says_so_and_works_later() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
    bench.must(Control::SetBudget { frames: FRAMES - 1 });
    for _ in 0..3 {
        assert_eq!(bench.refused(Control::Prep { gfn: Gfn(7), buffer: true }), Errno::ENOMEM);
    }
    bench.page_out(8);
    assert_eq!(bench.prep(7), Outcome::Proceed);
}

/// 5d27ed6a1f: paging and passthrough exclude each other, and each says so.
#[test]
fn r35_paging_is_refused_with_passthrough() {
    let mut bench = Bench::with(DomainConfig { passthrough: true, ..config(1) });
    let enable = Control::Enable { ring: Ring::Paging, layout: Layout::Flags32, slots: 0 };
    assert_eq!(bench.refused(enable), Errno::EMLINK);
}

/// XSA-89 (0fe53c4f27): a range of 4 G frames was set in one go.
#[test]
fn r36_no_operation_walks_a_range_without_end() {
    let mut bench = Bench::new(1);
    let set = |count| Control::SetAccess { first: Gfn(0), count, access: AccessType::R };
    assert_eq!(bench.refused(set(u64::MAX)), Errno::EINVAL);
    assert_eq!(bench.refused(set(1 << 32)), Errno::EINVAL);
}

/// 07e4376ae0, ca0f21841d, 233cfb99fd: the default was rejected by the range check, the last frame was off by one, and `get` read
/// another entry than `set` wrote.
#[test]
fn r37_the_last_frame_and_the_default_can_be_set_and_read() {
    let mut bench = Bench::new(1);
    bench.must(Control::SetDefaultAccess { access: AccessType::Rx2rw });
    for (number, access) in (0..).zip(AccessType::ALL) {
        bench.watch(FRAMES - 1, access);
        assert_eq!(bench.control(Control::GetAccess { gfn: Gfn(FRAMES - 1) }), Outcome::Value(number));
    }
    let beyond = Control::SetAccess { first: Gfn(FRAMES - 1), count: 2, access: AccessType::R };
    assert_eq!(bench.refused(beyond), Errno::EINVAL);
}

/// 07d4afd908, 5d570c1d02, 421850a06d: CR events vanished in a refactoring; writes of an equal value were not reported though
/// nobody had asked for changes only.
#[test]
fn r38_every_control_register_is_reported() {
    for kind in [CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4] {
        let mut bench = Bench::new(1);
        bench.enable(Ring::Access, 0);
        bench.must(Control::Monitor { kind, mode: MonitorMode::Async, on_change_only: false });
        let event = CpuEvent { kind, value: 9, old: 8, number: 0, rip: Gla(0), gfn: Gfn(0) };
        assert_eq!(bench.step(&Input::CpuEvent { vcpu: VcpuId(0), event }), Outcome::Proceed);
        assert_eq!(bench.request(Ring::Access).event.subject(), 9, "{kind:?}");
    }
}

/// 225a09cda4: without a listener the page was relaxed with the type that had been read before.
#[test]
fn r40_relaxing_a_page_leaves_its_type_alone() {
    let mut bench = Bench::new(1);
    bench.must(Control::SetAccessRequired { required: false });
    bench.enable(Ring::Paging, 0);
    bench.watch(7, AccessType::N);
    bench.must(Control::Nominate { gfn: Gfn(7) });
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging), "relaxed, and still nominated");
    assert_eq!(bench.domain.access_type(Gfn(7)), AccessType::Rwx);
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamPagingIn);
}

/// Consumers of 4.2 initialise the page after they enabled the ring: what was put before must come up with the next push.
#[test]
fn r42_a_consumer_that_initialises_the_page_late_loses_nothing() {
    let mut bench = Bench::new(2);
    let page = RingPage::heap();
    let enable = Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 });
    assert_eq!(bench.step_with(&enable, With::page(&page)), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    bench.backs[Ring::Access.index()] = mem_event::Back::init(page, Ring::Access, Layout::Flags32, 0).ok();
    bench.kick(Ring::Access);
    assert!(bench.effects.list.is_empty() && bench.domain.broken(Ring::Access).is_none());
    assert!(bench.requests(Ring::Access).is_empty());
    assert_eq!(bench.access(1, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.requests(Ring::Access).len(), 2);
}

/// b848dc83cc, 985ba41f66: disabling left settings of the old consumer behind that acted on the next one. Its monitors end with the ring
/// (`monitor::what_was_monitored_ends_with_the_ring_that_is_disabled`), the pages' rights are the domain's and stay, and what was out is
/// told again, to the new one.
#[test]
fn r43_what_is_left_of_an_old_consumer_cannot_answer_for_the_new_one() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    let mut old = bench.backs[Ring::Access.index()].take().expect("the ring is enabled");
    bench.must(Control::Disable { ring: Ring::Access, drain: false });
    bench.enable(Ring::Access, 1);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    old.answer(&request.answer());
    bench.kick(Ring::Access);
    assert_eq!(bench.waiting(0), Some(WaitReason::Answer(Ring::Access)));
}

/// A trace or a test that keeps one `Effects` sees only what a step added.
#[test]
fn effects_are_appended_and_cleared_by_their_owner() {
    let mut effects = Effects::default();
    let mut bench = Bench::new(1);
    let drop = |gfn| Input::Control(Control::Drop { gfn: Gfn(gfn) });
    let _ = bench.domain.apply(&drop(1), With::NOTHING, &mut effects);
    let _ = bench.domain.apply(&drop(2), With::NOTHING, &mut effects);
    assert_eq!(effects.list.len(), 4);
    effects.clear();
    assert_eq!(effects, Effects::default());
}
