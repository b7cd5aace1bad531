//! Sharing, the frame budget, and ENOMEM for every cause.

mod common;

use common::{Bench, FRAMES, R, W, answer_due, slot_due};
use mem_event::{
    Control, Effect, Errno, Event, Flags, Gfn, Input, NoConsumer, Outcome, P2mType, Rights, Ring, WaitReason,
};

fn handle(bench: &mut Bench, gfn: u64) -> u64 {
    match bench.control(Control::NominateShare { gfn: Gfn(gfn) }) {
        Outcome::Value(handle) => handle,
        other => panic!("frame {gfn} is not nominated: {other:?}"),
    }
}

fn share(bench: &mut Bench, source: u64, client: u64) {
    let (source_handle, client_handle) = (handle(bench, source), handle(bench, client));
    bench.must(Control::Share { source: Gfn(source), source_handle, client: Gfn(client), client_handle });
}

/// Frames 1 and 2 are one, and the budget is used up.
fn tight(vcpus: u32) -> Bench {
    let mut bench = Bench::new(vcpus);
    share(&mut bench, 1, 2);
    bench.must(Control::SetBudget { frames: FRAMES - 1 });
    bench
}

#[test]
fn two_frames_become_one_and_a_write_parts_them() {
    let mut bench = Bench::new(1);
    let (source_handle, client_handle) = (handle(&mut bench, 1), handle(&mut bench, 2));
    assert!(bench.has(&Effect::Tighten { first: Gfn(2), count: 1 }), "nobody writes it unnoticed from here");
    assert_eq!(handle(&mut bench, 1), source_handle, "nominated twice, it is the same");
    bench.must(Control::Share { source: Gfn(1), source_handle, client: Gfn(2), client_handle });
    assert!(bench.has(&Effect::Share { source: Gfn(1), client: Gfn(2) }));
    assert_eq!(bench.domain.info().resident, FRAMES - 1);
    assert_eq!(bench.access(0, 2, Rights::from_bits(5)), Outcome::Proceed, "reading and executing part nothing");
    assert!(bench.effects.list.is_empty());
    assert_eq!(bench.access(0, 2, Rights::RW), Outcome::Proceed);
    assert_eq!(bench.effects.list, [Effect::Unshare { gfn: Gfn(2), copy: true }]);
    assert_eq!(bench.domain.info().resident, FRAMES);
    assert_eq!(bench.access(0, 1, W), Outcome::Proceed);
    assert_eq!(bench.effects.list, [Effect::Unshare { gfn: Gfn(1), copy: false }], "the last one needs no copy");
    assert_eq!(bench.domain.info().resident, FRAMES);
}

#[test]
fn share_refuses_stale_handles_and_what_is_not_sharable() {
    let mut bench = Bench::new(1);
    let (one, two) = (handle(&mut bench, 1), handle(&mut bench, 2));
    let share = |source: (u64, u64), client: (u64, u64)| Control::Share {
        source: Gfn(source.0),
        source_handle: source.1,
        client: Gfn(client.0),
        client_handle: client.1,
    };
    assert_eq!(bench.refused(share((1, one), (3, two))), Errno::EINVAL);
    assert_eq!(bench.refused(share((1, two), (2, one))), Errno::EINVAL);
    assert_eq!(bench.refused(share((1, one), (1, one))), Errno::EINVAL);
    assert_eq!(bench.access(0, 2, W), Outcome::Proceed);
    assert_eq!(bench.refused(share((1, one), (2, two))), Errno::EINVAL, "a write made the handle void");
    let two = handle(&mut bench, 2);
    bench.must(share((1, one), (2, two)));
    assert_eq!(bench.refused(share((1, one), (2, one))), Errno::EINVAL, "they share already");
    let three = handle(&mut bench, 3);
    assert_eq!(bench.refused(share((3, three), (1, one))), Errno::EBUSY, "it has company");
    bench.must(Control::Drop { gfn: Gfn(5) });
    for gfn in [5, FRAMES, u64::MAX] {
        assert_eq!(bench.refused(Control::NominateShare { gfn: Gfn(gfn) }), Errno::EINVAL);
    }
    bench.must(Control::Pin { gfn: Gfn(6) });
    assert_eq!(bench.refused(Control::NominateShare { gfn: Gfn(6) }), Errno::EBUSY);
    bench.enable(Ring::Paging, 0);
    assert_eq!(bench.refused(Control::Nominate { gfn: Gfn(1) }), Errno::EBUSY, "a shared frame is not pageable");
}

#[test]
fn ballooning_a_shared_frame_keeps_the_others() {
    let mut bench = Bench::new(1);
    share(&mut bench, 1, 2);
    bench.must(Control::Drop { gfn: Gfn(1) });
    assert_eq!(bench.effects.list, [Effect::Unmap(Gfn(1)), Effect::Punch(Gfn(1))]);
    assert_eq!(bench.domain.info().resident, FRAMES - 1, "its memory is shown elsewhere");
    bench.must(Control::Drop { gfn: Gfn(2) });
    assert_eq!(bench.effects.list, [Effect::Unmap(Gfn(2)), Effect::Punch(Gfn(2))]);
    assert_eq!(bench.domain.info().resident, FRAMES - 2);
}

#[test]
fn enomem_on_unshare_is_one_event_and_the_write_succeeds_when_memory_appears() {
    let mut bench = tight(1);
    bench.enable(Ring::Sharing, 0);
    assert_eq!(bench.access(0, 2, W), answer_due(Ring::Sharing));
    let request = bench.request(Ring::Sharing);
    assert_eq!(request.event, Event::Sharing { gfn: Gfn(2), p2mt: P2mType::RamShared });
    assert_eq!(request.flags, Flags::VCPU_PAUSED);
    bench.must(Control::SetBudget { frames: FRAMES });
    assert!(bench.woken().is_empty(), "who has an event out waits for its answer");
    bench.answer(Ring::Sharing, &request);
    assert_eq!(bench.access(0, 2, W), Outcome::Proceed);
    assert!(bench.has(&Effect::Unshare { gfn: Gfn(2), copy: true }));
}

#[test]
fn an_answer_without_memory_is_another_event() {
    let mut bench = tight(1);
    bench.enable(Ring::Sharing, 0);
    for _ in 0..3 {
        assert_eq!(bench.access(0, 2, W), answer_due(Ring::Sharing));
        let request = bench.request(Ring::Sharing);
        bench.answer(Ring::Sharing, &request);
        assert_eq!(bench.woken(), [0]);
    }
}

#[test]
fn enomem_without_a_helper_waits_for_a_frame_and_nobody_is_paused_silently() {
    let mut bench = tight(2);
    assert_eq!(bench.access(0, 2, W), Outcome::Wait(WaitReason::Frame));
    assert_eq!(bench.access(1, 1, W), Outcome::Wait(WaitReason::Frame));
    bench.must(Control::Drop { gfn: Gfn(9) });
    assert_eq!(bench.woken(), [0], "as many as there are frames, oldest first");
    assert_eq!(bench.foreign(9, R), Outcome::Retry(Errno::ENOMEM), "the frame is promised");
    assert_eq!(bench.access(0, 2, W), Outcome::Proceed);
    assert_eq!(bench.waiting(1), Some(WaitReason::Frame));
    // vCPU 1 could go on by now: its frame is its own.
    bench.must(Control::SetBudget { frames: u64::MAX });
    assert_eq!(bench.woken(), [1]);
    assert_eq!(bench.access(1, 1, W), Outcome::Proceed);
}

#[test]
fn enomem_without_a_helper_crashes_where_that_is_set() {
    let mut bench = tight(1);
    bench.must(Control::SetNoConsumer { ring: Ring::Sharing, policy: NoConsumer::Crash });
    assert_eq!(bench.access(0, 2, W), Outcome::Crashed);
}

#[test]
fn a_helper_that_comes_hears_of_those_who_wait_for_frames() {
    let mut bench = tight(1);
    assert_eq!(bench.access(0, 2, W), Outcome::Wait(WaitReason::Frame));
    bench.enable(Ring::Sharing, 0);
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 2, W), answer_due(Ring::Sharing));
}

#[test]
fn enomem_of_a_foreign_caller_is_an_error_and_an_event_that_pauses_nobody() {
    let mut bench = tight(1);
    bench.enable(Ring::Sharing, 0);
    assert_eq!(bench.foreign(2, W), Outcome::Retry(Errno::ENOMEM));
    let request = bench.request(Ring::Sharing);
    assert_eq!(
        (request.flags, request.event),
        (Flags::FOREIGN, Event::Sharing { gfn: Gfn(2), p2mt: P2mType::RamShared })
    );
    assert_eq!(bench.domain.p2m_type(Gfn(2)), P2mType::RamShared, "the content is still shared");
    bench.must(Control::SetBudget { frames: FRAMES });
    assert!(bench.has(&Effect::RetryForeign));
    assert_eq!(bench.foreign(2, W), Outcome::Proceed);
}

#[test]
fn every_cause_of_enomem_is_the_same_event() {
    let mut bench = tight(2);
    bench.enable(Ring::Sharing, 0);
    bench.enable(Ring::Paging, 0);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(5), count: 1 });
    bench.page_out(6);
    bench.must(Control::SetBudget { frames: FRAMES - 3 });
    // A first touch, guest and foreign.
    assert_eq!(bench.access(0, 5, R), answer_due(Ring::Sharing));
    assert_eq!(bench.request(Ring::Sharing).event.p2mt(), P2mType::PopulateOnDemand);
    assert_eq!(bench.foreign(5, W), Outcome::Retry(Errno::ENOMEM));
    assert_eq!(bench.request(Ring::Sharing).flags, Flags::FOREIGN);
    // A load, which is the pager's error.
    assert_eq!(bench.access(1, 6, R), answer_due(Ring::Paging));
    assert!(matches!(bench.prep(6), Outcome::Refused(Errno::ENOMEM, _)));
    let request = bench.request(Ring::Sharing);
    assert_eq!(request.event, Event::Sharing { gfn: Gfn(6), p2mt: P2mType::RamPagingIn });
    assert_eq!(request.flags, Flags::FOREIGN);
}

#[test]
fn enomem_that_the_helper_causes_itself_is_an_error_and_it_never_waits_for_itself() {
    let mut bench = tight(2);
    bench.enable(Ring::Sharing, 2);
    // The helper maps a frame and writes to it, as a foreign caller: on an idle ring, a busy one, a full one.
    assert_eq!(bench.foreign(2, W), Outcome::Retry(Errno::ENOMEM));
    assert_eq!(bench.access(0, 2, W), answer_due(Ring::Sharing));
    assert_eq!(bench.access(1, 2, W), slot_due(Ring::Sharing));
    for _ in 0..3 {
        assert_eq!(bench.foreign(2, W), Outcome::Retry(Errno::ENOMEM));
        assert!(bench.effects.list.is_empty(), "a full ring takes no event, and the error says enough");
    }
    for request in bench.requests(Ring::Sharing) {
        bench.answer(Ring::Sharing, &request);
    }
    bench.must(Control::SetBudget { frames: FRAMES });
    assert_eq!(bench.access(1, 2, W), Outcome::Proceed);
    assert_eq!(bench.foreign(1, W), Outcome::Proceed);
}

#[test]
fn a_first_touch_is_held_until_a_frame_is_free() {
    let mut bench = Bench::new(3);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(0), count: FRAMES });
    assert_eq!(bench.domain.info().resident, 0);
    bench.must(Control::SetBudget { frames: 2 });
    assert_eq!(bench.access(0, 0, W), Outcome::Proceed);
    assert_eq!(bench.effects.list, [Effect::Zero(Gfn(0))]);
    assert_eq!(bench.access(0, 1, R), Outcome::Proceed);
    for vcpu in 0..3 {
        assert_eq!(bench.access(vcpu, 2 + u64::from(vcpu), W), Outcome::Wait(WaitReason::Frame));
    }
    bench.enable(Ring::Paging, 0);
    bench.page_out(0);
    assert_eq!(bench.woken(), [0]);
    assert!(bench.domain.info().resident < 2, "the frame is promised, not held");
    assert!(matches!(bench.prep(0), Outcome::Refused(Errno::ENOMEM, _)));
    assert_eq!(bench.access(0, 2, W), Outcome::Proceed);
    assert_eq!(bench.domain.info().resident, 2);
    // vCPU 1 is given a frame, and needs none after all: vCPU 2 gets it.
    bench.page_out(1);
    assert_eq!(bench.woken(), [1]);
    assert_eq!(bench.access(1, 2, W), Outcome::Proceed);
    assert_eq!(bench.woken(), [2]);
}

#[test]
fn a_lowered_budget_holds_new_frames_and_takes_none_away() {
    let mut bench = Bench::new(1);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(5), count: 1 });
    bench.must(Control::SetBudget { frames: 4 });
    assert_eq!(bench.domain.info().resident, FRAMES - 1);
    assert_eq!(bench.access(0, 6, W), Outcome::Proceed);
    assert_eq!(bench.access(0, 5, W), Outcome::Wait(WaitReason::Frame));
}

#[test]
fn a_helper_that_is_lost_leaves_those_who_wait_to_wait_for_frames() {
    let mut bench = tight(3);
    bench.enable(Ring::Sharing, 1);
    assert_eq!(bench.access(0, 2, W), answer_due(Ring::Sharing));
    assert_eq!(bench.access(1, 2, W), slot_due(Ring::Sharing));
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Sharing });
    assert_eq!(bench.woken(), [1]);
    assert_eq!(bench.access(1, 2, W), Outcome::Wait(WaitReason::Frame));
    bench.enable(Ring::Sharing, 1);
    assert_eq!(bench.requests(Ring::Sharing).len(), 1);
    assert_eq!(bench.woken(), [1]);
    assert_eq!(bench.access(1, 2, W), slot_due(Ring::Sharing));
}

#[test]
fn marking_frames_that_never_were_is_refused() {
    let mut bench = Bench::new(1);
    let before = bench.domain.state();
    for (first, count) in [(0, FRAMES + 1), (u64::MAX, 2), (FRAMES, 1)] {
        let outcome = bench.step(&Input::Unpopulated { first: Gfn(first), count });
        assert!(matches!(outcome, Outcome::Refused(Errno::EINVAL, _)));
    }
    assert!(matches!(bench.step(&Input::FillFailed { gfn: Gfn(FRAMES) }), Outcome::Refused(Errno::ENOENT, _)));
    assert_eq!(bench.domain.state(), before);
}
