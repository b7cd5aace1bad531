//! Consumers that lie: what a response may change, and what it may not.

mod common;

use common::{Bench, R, W, answer_due, flags};
use mem_event::{
    About, AccessType, Control, Effect, Errno, Event, Flags, Gfn, Input, Layout, Outcome, P2mType, Response, Ring,
    VcpuId, With,
};

/// vCPU 0 stands at a watched page, vCPU 1 at a paged one.
fn two_paused() -> Bench {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Access, 8);
    bench.enable(Ring::Paging, 8);
    bench.watch(3, AccessType::N);
    bench.page_out(4);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 4, R), answer_due(Ring::Paging));
    bench
}

fn response(flags: Flags, vcpu: u32, gfn: u64) -> Response {
    Response { flags, vcpu, about: About::Other(gfn), other_version: None, view: mem_event::ViewId::HOST }
}

#[test]
fn a_kick_without_responses_does_nothing_any_number_of_times() {
    let mut bench = two_paused();
    let before = bench.domain.state();
    for ring in [Ring::Access, Ring::Paging, Ring::Sharing] {
        for _ in 0..10 {
            bench.kick(ring);
            assert!(bench.effects.list.is_empty() && bench.effects.taken.is_empty());
        }
    }
    assert_eq!(bench.domain.state(), before);
}

/// What stopped it must stay in its way: where checks are taken out as soon as nothing is watched, it would go on.
#[test]
fn a_vcpu_whose_answer_lacks_vcpu_paused_is_held_although_it_has_the_rights_by_now() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 8);
    bench.watch(3, AccessType::N);
    assert!(!bench.domain.holds_vcpus());
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.must(Control::SetAccess { first: Gfn(3), count: 1, access: AccessType::Rwx });
    bench.respond(Ring::Access, &response(Flags::NONE, 0, 3));
    assert!(!bench.domain.is_watching() && bench.domain.holds_vcpus());
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    // The slot of its request is free: the answer that was due comes in another's.
    bench.watch(4, AccessType::N);
    assert_eq!(bench.access(1, 4, R), answer_due(Ring::Access));
    let other = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    assert!(bench.domain.holds_vcpus(), "the other");
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Access));
    let third = bench.request(Ring::Access);
    bench.must(Control::SetAccess { first: Gfn(4), count: 1, access: AccessType::Rwx });
    bench.answer(Ring::Access, &other);
    assert!(bench.domain.holds_vcpus() && third.vcpu == VcpuId(0));
}

#[test]
fn one_kick_takes_every_response_that_is_there() {
    let mut bench = Bench::new(6);
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::N);
    for vcpu in 0..6 {
        assert_eq!(bench.access(vcpu, 3, R), answer_due(Ring::Access));
    }
    for request in bench.requests(Ring::Access) {
        bench.post(Ring::Access, &request.answer());
    }
    bench.kick(Ring::Access);
    assert_eq!(bench.woken(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn answers_in_any_order_wake_the_right_vcpus() {
    let mut bench = Bench::new(4);
    bench.enable(Ring::Access, 4);
    bench.watch(3, AccessType::N);
    for vcpu in 0..4 {
        assert_eq!(bench.access(vcpu, 3, R), answer_due(Ring::Access));
    }
    let requests = bench.requests(Ring::Access);
    for vcpu in [2, 0, 3, 1] {
        bench.answer(Ring::Access, &requests[vcpu]);
        assert_eq!(bench.woken(), [u32::try_from(vcpu).unwrap()]);
    }
}

#[test]
fn a_response_that_means_nothing_frees_its_slot_and_changes_nothing_else() {
    let paused = Flags::VCPU_PAUSED;
    let cases = [
        ("no such vCPU", response(paused, 3, 3)),
        ("no such vCPU at all", response(paused, u32::MAX, 3)),
        ("dummy", response(flags(&[paused, Flags::DUMMY]), 0, 3)),
        ("a vCPU that is not paused", response(paused, 2, 3)),
        ("a vCPU that another ring paused", response(paused, 1, 3)),
        ("not VCPU_PAUSED", response(Flags::NONE, 0, 3)),
        ("flags that nobody knows", response(Flags(0xffff_ff00), 0, 3)),
    ];
    for (what, lie) in cases {
        let mut bench = two_paused();
        bench.requests(Ring::Access);
        let free = bench.domain.free_slots(Ring::Access);
        let waiting: Vec<_> = (0..3).map(|vcpu| bench.waiting(vcpu)).collect();
        bench.respond(Ring::Access, &lie);
        assert_eq!(bench.domain.free_slots(Ring::Access), free + 1, "{what}");
        assert_eq!((0..3).map(|vcpu| bench.waiting(vcpu)).collect::<Vec<_>>(), waiting, "{what}");
        assert_eq!(bench.effects.list.len(), 1, "{what}: {:?}", bench.effects.list);
    }
}

#[test]
fn a_response_of_another_version_frees_its_slot_and_leaves_the_vcpu_stopped() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    let answer = request.answer();
    let mut bytes = mem_event::wire::response_bytes(Layout::VmEvent7, Ring::Access, &answer);
    bytes[0] = 6;
    bench.back(Ring::Access).answer_raw(&bytes);
    bench.kick(Ring::Access);
    assert_eq!(bench.waiting(0), Some(mem_event::WaitReason::Answer(Ring::Access)));
    assert_eq!(bench.domain.free_slots(Ring::Access), 8);
}

#[test]
fn vm_event_turns_single_step_over_for_a_paused_vcpu_only() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    let kind = mem_event::CpuEventKind::SingleStep;
    bench.must(Control::Monitor { kind, mode: mem_event::MonitorMode::Sync, on_change_only: false });
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), answer_due(Ring::Access));
    let requests = bench.requests(Ring::Access);
    let toggle = flags(&[Flags::VCPU_PAUSED, Flags::TOGGLE_SINGLESTEP]);
    bench.respond(Ring::Access, &Response { flags: toggle, ..requests[0].answer() });
    assert!(bench.domain.single_steps(VcpuId(0)));
    bench.respond(Ring::Access, &Response { flags: toggle, ..requests[0].answer() });
    assert!(bench.domain.single_steps(VcpuId(0)), "the vCPU runs by now");
    assert!(!bench.domain.single_steps(VcpuId(1)));
}

#[test]
fn pause_counts_never_underflow_under_duplicate_answers() {
    let mut bench = two_paused();
    assert_eq!(bench.access(2, 3, W), answer_due(Ring::Access));
    let requests = bench.requests(Ring::Access);
    bench.answer(Ring::Access, &requests[0]);
    bench.answer(Ring::Access, &requests[0]);
    assert_eq!(bench.domain.pause_count(VcpuId(0)), 0);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.domain.pause_count(VcpuId(0)), 1);
    assert_eq!(bench.domain.pause_count(VcpuId(2)), 1, "the answer due to it was spent on another");
}

#[test]
fn a_frame_that_does_not_exist_wakes_the_vcpu_that_was_named_and_touches_no_type() {
    let mut bench = two_paused();
    bench.requests(Ring::Paging);
    bench.respond(Ring::Paging, &response(Flags::VCPU_PAUSED, 1, u64::MAX));
    assert_eq!(bench.woken(), [1]);
    assert_eq!(bench.domain.p2m_type(Gfn(4)), P2mType::RamPagingIn);
    assert_eq!(bench.access(1, 4, R), answer_due(Ring::Paging), "it looks again, and asks again");
}

#[test]
fn a_frame_in_any_other_state_is_left_as_it_is() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 8);
    for gfn in [1, 2] {
        bench.page_out(gfn);
    }
    bench.must(Control::Nominate { gfn: Gfn(3) });
    bench.must(Control::Drop { gfn: Gfn(5) });
    let _ = bench.step(&Input::Unpopulated { first: Gfn(6), count: 1 });
    for (gfn, kind) in [
        (2, P2mType::RamPaged),
        (3, P2mType::RamPagingOut),
        (4, P2mType::RamRw),
        (5, P2mType::Invalid),
        (6, P2mType::PopulateOnDemand),
    ] {
        assert_eq!(bench.access(0, 1, R), answer_due(Ring::Paging));
        bench.requests(Ring::Paging);
        bench.respond(Ring::Paging, &response(Flags::VCPU_PAUSED, 0, gfn));
        assert_eq!(bench.domain.p2m_type(Gfn(gfn)), kind);
        assert!(!bench.has(&Effect::Map(Gfn(gfn))));
    }
}

#[test]
fn a_producer_index_that_cannot_be_breaks_the_ring_and_no_other() {
    for ahead in [2, 9, 64, 0x7fff_ffff, u32::MAX] {
        let mut bench = two_paused();
        bench.requests(Ring::Access);
        bench.back(Ring::Access).set_rsp_prod(ahead);
        bench.kick(Ring::Access);
        assert!(bench.domain.broken(Ring::Access).is_some_and(|why| why.contains("rsp_prod")));
        assert!(matches!(&bench.effects.list[..], [Effect::Broken(Ring::Access, _)]));
        assert_eq!(bench.waiting(0), Some(mem_event::WaitReason::Answer(Ring::Access)));
        assert_eq!(bench.access(2, 3, R), common::consumer_due(Ring::Access), "no more requests go there");
        let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 };
        assert_eq!(bench.refused(enable), Errno::EBUSY);
        // The other ring works on.
        let request = bench.request(Ring::Paging);
        assert_eq!(bench.prep(4), Outcome::Proceed);
        bench.answer(Ring::Paging, &request);
        assert_eq!(bench.woken(), [1]);
    }
}

#[test]
fn a_broken_ring_can_be_disabled_or_taken_up_by_a_successor() {
    for killed in [false, true] {
        let mut bench = two_paused();
        bench.requests(Ring::Access);
        bench.back(Ring::Access).set_rsp_prod(77);
        bench.kick(Ring::Access);
        bench.kick(Ring::Access);
        if killed {
            let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
            bench.enable(Ring::Access, 8);
            let request = bench.request(Ring::Access);
            bench.answer(Ring::Access, &request);
        } else {
            bench.must(Control::Disable { ring: Ring::Access, drain: true });
            assert!(bench.has(&Effect::Closed(Ring::Access)));
        }
        assert_eq!(bench.woken(), [0]);
    }
}

#[test]
fn a_vcpu_whose_answer_was_squandered_goes_on_with_the_next_consumer() {
    let mut bench = two_paused();
    bench.requests(Ring::Access);
    bench.respond(Ring::Access, &response(Flags::VCPU_PAUSED, 2, 3));
    assert_eq!(bench.waiting(0), Some(mem_event::WaitReason::Answer(Ring::Access)));
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    bench.enable(Ring::Access, 8);
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
}

#[test]
fn garbage_on_a_page_is_not_a_response() {
    let mut bench = Bench::new(1);
    let page = mem_event::RingPage::heap();
    for word in 0..500 {
        page.write_word(word, 0xdead_beef_dead_beef);
    }
    let enable = Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 });
    assert_eq!(bench.step_with(&enable, With::page(&page)), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    page.write_header(2, 0xdead_beef);
    bench.kick(Ring::Access);
    assert!(bench.domain.broken(Ring::Access).is_some());
    assert_eq!(bench.waiting(0), Some(mem_event::WaitReason::Answer(Ring::Access)));
}

#[test]
fn without_a_record_the_same_happens_and_nothing_is_written_down() {
    for layout in [Layout::Flags32, Layout::VmEvent7] {
        let mut bench = Bench::new(1);
        bench.domain.keep_record(false);
        assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
        bench.watch(3, AccessType::N);
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
        assert_eq!(bench.effects.list, [Effect::Notify(Ring::Access)]);
        let request = bench.request(Ring::Access);
        bench.answer(Ring::Access, &request);
        assert_eq!(bench.effects.list, [Effect::Wake(VcpuId(0))]);
        assert!(bench.effects.taken.is_empty());
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
        let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
        assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
        assert_eq!(bench.effects.list, [Effect::Notify(Ring::Access)]);
        assert_eq!(bench.requests(Ring::Access).len(), 1);
    }
}

#[test]
fn a_response_of_another_reason_restores_no_frame_and_lets_its_vcpu_go_on() {
    let about_another =
        Event::Violation { gfn: Gfn(4), offset: 0, gla: None, rights: mem_event::Rights::R, in_gpt: false };
    for (layout, restores) in [(Layout::VmEvent7, false), (Layout::Flags32, true), (Layout::Flags16, true)] {
        let mut bench = Bench::new(1);
        assert_eq!(bench.try_enable(Ring::Paging, layout, 0), Outcome::Proceed);
        bench.page_out(4);
        assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
        let request = bench.request(Ring::Paging);
        assert_eq!(bench.prep(4), Outcome::Proceed);
        bench.respond(Ring::Paging, &Response { about: About::Event(about_another), ..request.answer() });
        assert_eq!(bench.woken(), [0], "{layout}");
        assert_eq!(bench.domain.p2m_type(Gfn(4)) == P2mType::RamRw, restores, "{layout}");
    }
}

#[test]
fn a_responses_type_of_the_frame_is_not_looked_at() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.try_enable(Ring::Paging, Layout::VmEvent7, 0), Outcome::Proceed);
    bench.page_out(4);
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
    let request = bench.request(Ring::Paging);
    assert_eq!(bench.prep(4), Outcome::Proceed);
    let mut bytes = mem_event::wire::response_bytes(Layout::VmEvent7, Ring::Paging, &request.answer());
    bytes[32] = 0xee;
    let response = mem_event::wire::read_response(Layout::VmEvent7, Ring::Paging, &bytes);
    assert_eq!(response.about, About::Event(Event::Paging { gfn: Gfn(4), p2mt: P2mType::Invalid }));
    bytes[36] = 1;
    let dropped = mem_event::wire::read_response(Layout::VmEvent7, Ring::Paging, &bytes);
    assert!(dropped.flags.contains(Flags::DROP_PAGE), "it is read, whatever stands beside it");
    bench.respond(Ring::Paging, &response);
    assert_eq!(bench.domain.p2m_type(Gfn(4)), P2mType::RamRw);
}
