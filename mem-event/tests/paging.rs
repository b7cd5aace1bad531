//! Paging: a frame leaves for the pager and comes back.

mod common;

use common::{Bench, R, W, answer_due, flags};
use mem_event::{
    AccessType, Control, Effect, Errno, Event, Flags, Gfn, NoConsumer, Outcome, P2mType, Rights, Ring, VcpuId,
    WaitReason, With,
};

#[test]
fn a_frame_goes_out_and_comes_back_with_its_rights() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.watch(5, AccessType::Rx);
    let before = bench.domain.info();
    bench.must(Control::Nominate { gfn: Gfn(5) });
    assert!(bench.has(&Effect::Unmap(Gfn(5))));
    bench.must(Control::Evict { gfn: Gfn(5) });
    assert!(bench.has(&Effect::Punch(Gfn(5))));
    assert_eq!(bench.domain.info().paged, 1);
    assert_eq!(bench.access(0, 5, R), answer_due(Ring::Paging));
    let request = bench.request(Ring::Paging);
    assert_eq!(request.event, Event::Paging { gfn: Gfn(5), p2mt: P2mType::RamPaged });
    assert_eq!(request.flags, Flags::VCPU_PAUSED);
    assert_eq!(bench.prep(5), Outcome::Proceed);
    assert_eq!(bench.effects.list, [Effect::Fill(Gfn(5))]);
    assert!(bench.domain.rights().allowed(Gfn(5)).is_empty(), "readable before its answer");
    bench.answer(Ring::Paging, &request);
    assert!(bench.has(&Effect::Map(Gfn(5))));
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 5, R), Outcome::Proceed);
    assert_eq!(bench.domain.p2m_type(Gfn(5)), P2mType::RamRw);
    assert_eq!(bench.domain.access_type(Gfn(5)), AccessType::Rx);
    assert_eq!(bench.domain.info(), before);
}

#[test]
fn a_touch_between_nominate_and_evict_makes_the_eviction_fail() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Nominate { gfn: Gfn(5) });
    assert_eq!(bench.access(0, 5, W), answer_due(Ring::Paging));
    let request = bench.request(Ring::Paging);
    assert_eq!(request.event.p2mt(), P2mType::RamPagingOut);
    assert_eq!(request.flags, flags(&[Flags::VCPU_PAUSED, Flags::EVICT_FAIL]));
    assert_eq!(bench.refused(Control::Evict { gfn: Gfn(5) }), Errno::EBUSY);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.effects.list.iter().filter(|effect| **effect == Effect::Map(Gfn(5))).count(), 1);
    assert_eq!(bench.access(0, 5, W), Outcome::Proceed);
    assert_eq!(bench.domain.info().paged, 0);
}

#[test]
fn several_vcpus_on_one_paged_frame_need_one_load_and_all_go_on() {
    let mut bench = Bench::new(4);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    for vcpu in 0..4 {
        assert_eq!(bench.access(vcpu, 7, R), answer_due(Ring::Paging));
        assert_eq!(bench.domain.pause_count(VcpuId(vcpu)), 1);
    }
    let requests = bench.requests(Ring::Paging);
    assert_eq!(requests.len(), 4);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    assert_eq!(bench.prep(7), Outcome::Proceed, "a second load is idempotent");
    assert!(bench.effects.list.is_empty());
    let mut maps = 0;
    for (vcpu, request) in (0..).zip(&requests) {
        bench.answer(Ring::Paging, request);
        maps += bench.effects.list.iter().filter(|effect| **effect == Effect::Map(Gfn(7))).count();
        assert_eq!(bench.woken(), [vcpu]);
    }
    assert_eq!(maps, 1);
    for vcpu in 0..4 {
        assert_eq!(bench.access(vcpu, 7, Rights::RW), Outcome::Proceed);
    }
}

#[test]
fn a_foreign_touch_asks_once_pauses_nobody_and_is_told_to_come_back() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
    let request = bench.request(Ring::Paging);
    assert_eq!((request.flags, request.event.p2mt(), request.vcpu), (Flags::FOREIGN, P2mType::RamPaged, VcpuId(0)));
    let slots = bench.domain.free_slots(Ring::Paging);
    assert_eq!(bench.foreign(7, W), Outcome::Retry(Errno::ENOENT));
    assert!(bench.effects.list.is_empty());
    assert_eq!(bench.domain.free_slots(Ring::Paging), slots);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    bench.answer(Ring::Paging, &request);
    assert!(bench.has(&Effect::Map(Gfn(7))) && bench.has(&Effect::RetryForeign));
    assert!(bench.woken().is_empty());
    assert_eq!(bench.foreign(7, W), Outcome::Proceed);
}

#[test]
fn the_answer_to_a_foreign_request_brings_the_frame_back_whatever_its_vcpu_is() {
    for vcpu in [0, 1, 2, 77, u32::MAX] {
        let mut bench = Bench::new(2);
        bench.enable(Ring::Paging, 0);
        bench.page_out(7);
        bench.page_out(8);
        assert_eq!(bench.access(0, 8, R), answer_due(Ring::Paging));
        assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
        let request = bench.requests(Ring::Paging)[1];
        assert_eq!(bench.prep(7), Outcome::Proceed);
        let mut response = request.answer();
        response.vcpu = vcpu;
        bench.respond(Ring::Paging, &response);
        assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamRw, "vCPU {vcpu}");
        assert!(bench.woken().is_empty());
        assert_eq!(bench.domain.pause_count(VcpuId(0)), 1);
    }
}

#[test]
fn a_foreign_touch_of_a_nominated_frame_makes_the_eviction_fail_and_is_answered_like_any() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Nominate { gfn: Gfn(7) });
    assert_eq!(bench.foreign(7, W), Outcome::Retry(Errno::ENOENT));
    let request = bench.request(Ring::Paging);
    assert_eq!(request.flags, flags(&[Flags::FOREIGN, Flags::EVICT_FAIL]));
    assert_eq!(bench.refused(Control::Evict { gfn: Gfn(7) }), Errno::EBUSY);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamRw);
    assert_eq!(bench.foreign(7, W), Outcome::Proceed);
}

#[test]
fn a_foreign_caller_whose_request_was_answered_without_a_load_may_ask_again() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamPagingIn);
    assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
    assert_eq!(bench.request(Ring::Paging).event.p2mt(), P2mType::RamPagingIn);
}

#[test]
fn a_second_answer_changes_nothing() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(1, 7, R), answer_due(Ring::Paging));
    let requests = bench.requests(Ring::Paging);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    bench.answer(Ring::Paging, &requests[0]);
    bench.answer(Ring::Paging, &requests[0]);
    assert!(bench.woken().is_empty() && !bench.has(&Effect::Map(Gfn(7))));
}

#[test]
fn ballooning_a_paged_frame_tells_the_pager_from_either_context() {
    for (toolstack, nominated_only) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut bench = Bench::new(2);
        bench.enable(Ring::Paging, 0);
        bench.must(Control::Nominate { gfn: Gfn(7) });
        if !nominated_only {
            bench.must(Control::Evict { gfn: Gfn(7) });
        }
        let gfn = Gfn(7);
        let outcome = if toolstack {
            bench.control(Control::Drop { gfn })
        } else {
            bench.step(&mem_event::Input::Balloon { vcpu: VcpuId(1), gfn })
        };
        assert_eq!(outcome, Outcome::Proceed);
        assert_eq!(bench.has(&Effect::Punch(gfn)), nominated_only, "a nominated frame's memory goes too");
        let request = bench.request(Ring::Paging);
        let mut expected = Flags::DROP_PAGE;
        if nominated_only {
            expected = expected.union(Flags::EVICT_FAIL);
        }
        if toolstack {
            expected = expected.union(Flags::FOREIGN);
        }
        assert_eq!((request.flags, request.event), (expected, Event::Paging { gfn, p2mt: P2mType::RamRw }));
        assert_eq!((bench.domain.p2m_type(gfn), bench.domain.info().paged), (P2mType::Invalid, 0));
        bench.answer(Ring::Paging, &request);
        assert_eq!(bench.domain.p2m_type(gfn), P2mType::Invalid, "the answer brings nothing back");
        assert_eq!(bench.domain.free_slots(Ring::Paging), 64);
    }
}

#[test]
fn ballooning_with_a_full_ring_waits_in_the_guest_and_is_refused_to_the_toolstack() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 1);
    bench.page_out(6);
    bench.page_out(7);
    assert_eq!(bench.access(0, 6, R), answer_due(Ring::Paging));
    assert_eq!(bench.refused(Control::Drop { gfn: Gfn(7) }), Errno::EBUSY);
    let balloon = mem_event::Input::Balloon { vcpu: VcpuId(1), gfn: Gfn(7) };
    assert_eq!(bench.step(&balloon), Outcome::Wait(WaitReason::Slot(Ring::Paging)));
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamPaged);
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.step(&balloon), Outcome::Proceed);
    assert_eq!(bench.request(Ring::Paging).flags, Flags::DROP_PAGE);
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::Invalid);
}

#[test]
fn ballooning_without_a_pager_or_of_a_plain_frame_puts_nothing() {
    let mut bench = Bench::new(1);
    bench.must(Control::Drop { gfn: Gfn(3) });
    assert_eq!(bench.effects.list, [Effect::Unmap(Gfn(3)), Effect::Punch(Gfn(3))]);
    assert_eq!(bench.refused(Control::Drop { gfn: Gfn(3) }), Errno::ENOENT);
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    bench.must(Control::Drop { gfn: Gfn(4) });
    assert!(bench.effects.list.is_empty());
    assert_eq!(bench.domain.info().paged, 0);
}

#[test]
fn a_frame_that_was_taken_out_is_populated_within_the_budget_and_no_other() {
    let mut bench = Bench::new(1);
    bench.must(Control::Drop { gfn: Gfn(3) });
    bench.must(Control::SetBudget { frames: common::FRAMES - 1 });
    assert_eq!(bench.refused(Control::Populate { gfn: Gfn(3) }), Errno::ENOMEM);
    bench.must(Control::SetBudget { frames: common::FRAMES });
    bench.must(Control::Populate { gfn: Gfn(3) });
    assert_eq!(bench.effects.list, [Effect::Zero(Gfn(3))]);
    assert_eq!((bench.domain.p2m_type(Gfn(3)), bench.domain.info().resident), (P2mType::RamRw, common::FRAMES));
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    for gfn in [3, 4, 5] {
        assert_eq!(bench.refused(Control::Populate { gfn: Gfn(gfn) }), Errno::EBUSY);
    }
}

#[test]
fn a_balloon_deflates_by_touch() {
    let mut bench = Bench::new(1);
    bench.must(Control::Drop { gfn: Gfn(3) });
    assert_eq!(bench.domain.info().resident, common::FRAMES - 1);
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
    assert_eq!(bench.effects.list, [Effect::Zero(Gfn(3))]);
    assert_eq!(bench.domain.info().resident, common::FRAMES);
}

#[test]
fn prep_has_xens_refusals_and_a_later_retry_works() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    let prep = |gfn, buffer| Control::Prep { gfn: Gfn(gfn), buffer };
    for gfn in [3, common::FRAMES, u64::MAX] {
        assert_eq!(bench.refused(prep(gfn, true)), Errno::ENOENT);
    }
    bench.page_out(7);
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
    assert_eq!(bench.refused(prep(7, false)), Errno::EINVAL);
    bench.must(Control::SetBudget { frames: common::FRAMES - 1 });
    assert_eq!(bench.refused(prep(7, true)), Errno::ENOMEM);
    bench.must(Control::SetBudget { frames: common::FRAMES });
    assert_eq!(bench.control(prep(7, true)), Outcome::Proceed);
}

#[test]
fn a_content_that_could_not_be_written_costs_no_frame_and_shows_nothing() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.access(0, 7, R), answer_due(Ring::Paging));
    let (before, state) = (bench.domain.info(), bench.domain.state());
    assert_eq!(bench.prep(7), Outcome::Proceed);
    assert!(bench.domain.rights().allowed(Gfn(7)).is_empty());
    assert_eq!(bench.step(&mem_event::Input::FillFailed { gfn: Gfn(7) }), Outcome::Proceed);
    assert!(bench.has(&Effect::Punch(Gfn(7))));
    assert_eq!((bench.domain.info(), bench.domain.state()), (before, state));
    assert_eq!(bench.prep(7), Outcome::Proceed);
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.access(0, 7, R), Outcome::Proceed);
}

#[test]
fn a_frame_that_nobody_asked_for_is_mapped_when_it_is_loaded() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    assert_eq!(bench.effects.list, [Effect::Fill(Gfn(7)), Effect::Map(Gfn(7))]);
    let _ = bench.step(&mem_event::Input::FillFailed { gfn: Gfn(7) });
    assert_eq!(bench.effects.list, [Effect::Unmap(Gfn(7)), Effect::Punch(Gfn(7))]);
    assert_eq!((bench.domain.p2m_type(Gfn(7)), bench.domain.info().paged), (P2mType::RamPaged, 1));
}

#[test]
fn populate_without_a_ring_waits_or_crashes_as_set_and_never_spins() {
    for policy in [NoConsumer::Wait, NoConsumer::Crash] {
        let mut bench = Bench::new(1);
        bench.enable(Ring::Paging, 0);
        bench.page_out(7);
        bench.must(Control::Disable { ring: Ring::Paging, drain: false });
        bench.must(Control::SetNoConsumer { ring: Ring::Paging, policy });
        let outcome = bench.access(0, 7, R);
        if policy == NoConsumer::Crash {
            assert_eq!(outcome, Outcome::Crashed);
            assert!(
                bench.effects.list.iter().any(|effect| matches!(effect, Effect::Crash(why) if why.contains("vCPU 0")))
            );
        } else {
            assert_eq!(outcome, Outcome::Wait(WaitReason::Consumer(Ring::Paging)));
        }
    }
}

#[test]
fn what_is_mapped_by_somebody_is_neither_nominated_nor_evicted() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Pin { gfn: Gfn(7) });
    assert_eq!(bench.refused(Control::Nominate { gfn: Gfn(7) }), Errno::EBUSY);
    assert_eq!(bench.refused(Control::Drop { gfn: Gfn(7) }), Errno::EBUSY);
    bench.must(Control::Unpin { gfn: Gfn(7) });
    assert_eq!(bench.refused(Control::Unpin { gfn: Gfn(7) }), Errno::EINVAL);
    bench.must(Control::Nominate { gfn: Gfn(7) });
    bench.must(Control::Pin { gfn: Gfn(7) });
    assert_eq!(bench.refused(Control::Evict { gfn: Gfn(7) }), Errno::EBUSY);
    bench.must(Control::Unpin { gfn: Gfn(7) });
    bench.must(Control::Evict { gfn: Gfn(7) });
    assert_eq!(bench.control(Control::Pin { gfn: Gfn(7) }), Outcome::Retry(Errno::ENOENT));
    let request = bench.request(Ring::Paging);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    bench.answer(Ring::Paging, &request);
    bench.must(Control::Pin { gfn: Gfn(7) });
    assert_eq!(bench.refused(Control::Pin { gfn: Gfn(common::FRAMES) }), Errno::EINVAL);
}

#[test]
fn a_pager_maps_what_it_has_nominated_also_where_the_guest_was_faster() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Nominate { gfn: Gfn(7) });
    let _ = bench.access(0, 7, Rights::W);
    bench.must(Control::Pin { gfn: Gfn(7) });
    assert_eq!(bench.refused(Control::Evict { gfn: Gfn(7) }), Errno::EBUSY);
    bench.must(Control::Unpin { gfn: Gfn(7) });
    // Nor does anybody wait for the answer once the content is there.
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    bench.must(Control::Nominate { gfn: Gfn(7) });
    bench.must(Control::Evict { gfn: Gfn(7) });
    assert_eq!(bench.control(Control::Pin { gfn: Gfn(7) }), Outcome::Retry(Errno::ENOENT));
    assert_eq!(bench.prep(7), Outcome::Proceed);
    bench.must(Control::Pin { gfn: Gfn(7) });
}

#[test]
fn nominate_and_evict_refuse_what_is_not_pageable() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    let _ = bench.step(&mem_event::Input::Unpopulated { first: Gfn(5), count: 1 });
    bench.must(Control::Drop { gfn: Gfn(6) });
    for gfn in [4, 5, 6, common::FRAMES, u64::MAX] {
        assert_eq!(bench.refused(Control::Nominate { gfn: Gfn(gfn) }), Errno::EBUSY);
        assert_eq!(bench.refused(Control::Evict { gfn: Gfn(gfn) }), Errno::EBUSY);
    }
}

#[test]
fn a_whole_guest_can_be_ballooned_out_of_its_pager_with_nothing_lost() {
    let frames = 4096;
    let mut bench = Bench::with(mem_event::DomainConfig { ram: vec![(Gfn(0), frames)], ..common::config(1) });
    bench.enable(Ring::Paging, 8);
    let (mut effects, mut dropped) = (mem_event::Effects::default(), 0);
    for gfn in (0..frames).map(Gfn) {
        for control in [Control::Nominate { gfn }, Control::Evict { gfn }] {
            let _ = bench.domain.apply(&mem_event::Input::Control(control), With::NOTHING, &mut effects);
        }
    }
    for gfn in (0..frames).map(Gfn) {
        effects.clear();
        let balloon = mem_event::Input::Balloon { vcpu: VcpuId(0), gfn };
        while let Outcome::Wait(_) = bench.domain.apply(&balloon, With::NOTHING, &mut effects) {
            for request in bench.requests(Ring::Paging) {
                assert!(request.flags.contains(Flags::DROP_PAGE));
                dropped += 1;
                bench.post(Ring::Paging, &request.answer());
            }
            let _ = bench.domain.kick(Ring::Paging, None, &mut effects);
        }
    }
    dropped += bench.requests(Ring::Paging).len();
    assert_eq!(dropped as u64, frames);
    assert_eq!(bench.domain.info().paged, 0);
    bench.domain.check_invariants().unwrap();
}

#[test]
fn the_answer_to_a_foreign_request_wakes_nobody_even_if_it_says_so() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(7);
    bench.page_out(8);
    assert_eq!(bench.foreign(7, R), Outcome::Retry(Errno::ENOENT));
    assert_eq!(bench.access(0, 8, R), answer_due(Ring::Paging));
    let mut response = bench.requests(Ring::Paging)[0].answer();
    response.flags = response.flags.union(Flags::VCPU_PAUSED);
    assert_eq!(bench.prep(7), Outcome::Proceed);
    bench.respond(Ring::Paging, &response);
    assert_eq!(bench.domain.p2m_type(Gfn(7)), P2mType::RamRw);
    assert!(bench.woken().is_empty());
}
