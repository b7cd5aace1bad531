//! Access rights: what stops a vCPU, what does not.

mod common;

use common::{Bench, R, W, X, answer_due, config, slot_due};
use mem_event::{
    AccessType, Control, DomainConfig, Effect, Errno, Event, Flags, Gfn, Gla, NoConsumer, Outcome, Rights, Ring,
    VcpuId, WaitReason, With,
};

#[test]
fn a_violation_stops_the_vcpu_until_its_answer() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::R);
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    assert_eq!(bench.access(0, 3, Rights::RW), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    let gla = Some(Gla(0xffff_8000_0000_3123));
    assert_eq!(request.event, Event::Violation { gfn: Gfn(3), offset: 0x123, gla, rights: Rights::RW, in_gpt: false });
    assert_eq!(request.flags, Flags::VCPU_PAUSED);
    let before = bench.domain.state();
    assert_eq!(bench.access(0, 3, W), answer_due(Ring::Access), "it looks again while it is paused");
    assert_eq!(bench.domain.state(), before);
    bench.watch(3, AccessType::Rwx);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 3, Rights::RW), Outcome::Proceed);
}

#[test]
fn a_full_ring_makes_the_vcpu_wait_and_the_oldest_waiter_gets_the_slot() {
    let mut bench = Bench::new(4);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, X), answer_due(Ring::Access));
    for vcpu in [2, 1] {
        assert_eq!(bench.access(vcpu, 3, X), slot_due(Ring::Access));
        assert_eq!(bench.domain.pause_count(VcpuId(vcpu)), 0);
    }
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [2, 0]);
    assert_eq!(bench.access(3, 3, X), slot_due(Ring::Access), "nobody takes the slot that was promised");
    assert_eq!(bench.access(2, 3, X), answer_due(Ring::Access));
    assert_eq!(bench.domain.pause_count(VcpuId(2)), 1);
    assert_eq!(bench.request(Ring::Access).vcpu, VcpuId(2));
}

#[test]
fn without_a_listener_the_vcpu_waits_for_one() {
    let mut bench = Bench::new(2);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), Outcome::Wait(WaitReason::Consumer(Ring::Access)));
    bench.enable(Ring::Access, 0);
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
}

#[test]
fn without_a_listener_the_page_is_relaxed_where_that_is_set() {
    let mut bench = Bench::new(1);
    bench.watch(3, AccessType::N);
    bench.must(mem_event::Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Relax });
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    assert_eq!(bench.domain.access_type(Gfn(3)), AccessType::Rwx);
    assert!(!bench.effects.list.iter().any(|effect| matches!(effect, Effect::Wake(_))));
}

#[test]
fn the_violation_table_holds_for_every_type_and_combination() {
    // What stops the vCPU, from the table of Xen's nested page fault: bits r 1, w 2, x 4.
    let forbidden = [
        (AccessType::N, 7),
        (AccessType::R, 6),
        (AccessType::W, 5),
        (AccessType::Rw, 4),
        (AccessType::X, 3),
        (AccessType::Rx, 2),
        (AccessType::Wx, 1),
        (AccessType::Rwx, 0),
        (AccessType::Rx2rw, 0),
        (AccessType::N2rwx, 0),
    ];
    for (access, forbidden) in forbidden {
        for wanted in 1..8 {
            let mut bench = Bench::new(1);
            bench.enable(Ring::Access, 0);
            bench.watch(3, access);
            // A write turns rx2rw into rw, which then lacks x.
            let stops = wanted & forbidden != 0 || access == AccessType::Rx2rw && wanted & 6 == 6;
            let outcome = bench.access(0, 3, Rights::from_bits(wanted));
            let expected = if stops { answer_due(Ring::Access) } else { Outcome::Proceed };
            assert_eq!(outcome, expected, "{access} {wanted}");
            let events = bench.requests(Ring::Access).len();
            assert_eq!(events, usize::from(stops || access == AccessType::N2rwx), "{access} {wanted}");
        }
    }
}

#[test]
fn rx2rw_turns_a_write_into_rw_without_an_event() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::Rx2rw);
    assert_eq!(bench.access(0, 3, X), Outcome::Proceed);
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
    assert!(bench.effects.list.is_empty());
    assert_eq!(bench.domain.access_type(Gfn(3)), AccessType::Rw);
    assert_eq!(bench.access(0, 3, X), answer_due(Ring::Access), "what it gained in w it lost in x");
}

#[test]
fn n2rwx_reports_the_first_access_and_stops_nobody() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::N2rwx);
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
    let request = bench.request(Ring::Access);
    assert_eq!((request.flags, request.event.rights()), (Flags::NONE, W));
    assert_eq!(bench.domain.access_type(Gfn(3)), AccessType::Rwx);
    assert_eq!(bench.access(1, 3, Rights::RWX), Outcome::Proceed);
    assert!(bench.requests(Ring::Access).is_empty());
    bench.answer(Ring::Access, &request);
    assert!(bench.woken().is_empty());
}

#[test]
fn n2rwx_on_a_nominated_frame_is_reported_and_paged_in_one_pass() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.enable(Ring::Paging, 0);
    bench.watch(3, AccessType::N2rwx);
    bench.must(Control::Nominate { gfn: Gfn(3) });
    assert_eq!(bench.access(0, 3, W), answer_due(Ring::Paging));
    assert_eq!(bench.request(Ring::Access).flags, Flags::NONE);
    assert!(bench.request(Ring::Paging).flags.contains(Flags::EVICT_FAIL));
}

#[test]
fn rights_come_before_paging_where_the_frame_is_there_and_after_it_where_it_is_not() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.enable(Ring::Paging, 0);
    bench.watch(3, AccessType::N);
    bench.must(Control::Nominate { gfn: Gfn(3) });
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    bench.must(Control::Evict { gfn: Gfn(3) });
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Paging), "a frame that is not there has no rights");
    let request = bench.request(Ring::Paging);
    assert_eq!(bench.prep(3), Outcome::Proceed);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access), "woken from a page-in, it is checked again");
}

#[test]
fn without_a_listener_the_domain_crashes_where_that_is_set() {
    let mut bench = Bench::new(1);
    bench.must(Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Crash });
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), Outcome::Crashed);
    assert!(matches!(&bench.effects.list[..], [Effect::Crash(_)]));
}

#[test]
fn access_not_required_relaxes_and_required_waits() {
    let mut bench = Bench::new(2);
    bench.watch(3, AccessType::N);
    bench.must(Control::SetAccessRequired { required: false });
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
    assert_eq!(bench.domain.access_type(Gfn(3)), AccessType::Rwx);
    bench.watch(3, AccessType::N2rwx);
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
    bench.must(Control::SetAccessRequired { required: true });
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, W), Outcome::Wait(WaitReason::Consumer(Ring::Access)));
}

#[test]
fn four_vcpus_over_all_of_ram_in_n2rwx_with_a_slow_consumer_lose_nothing() {
    let frames = 4096;
    let mut bench = Bench::with(DomainConfig { ram: vec![(Gfn(0), frames)], ..config(4) });
    bench.enable(Ring::Access, 4);
    bench.must(Control::SetAccess { first: Gfn(0), count: frames, access: AccessType::N2rwx });
    let mut effects = mem_event::Effects::default();
    let (mut seen, mut next) = (vec![0; 4096], [0u64, 1, 2, 3]);
    while next.iter().any(|gfn| *gfn < frames) {
        for (vcpu, gfn) in (0..).zip(&mut next).filter(|(_, gfn)| **gfn < frames) {
            // Each touches the frames of all in its own order, so some are touched twice.
            for touched in [*gfn, frames - 1 - *gfn] {
                let _ = bench.domain.access(VcpuId(vcpu), &common::touch(touched, R), None, &mut effects);
            }
            if bench.domain.waiting(VcpuId(vcpu)).is_none() {
                *gfn += 4;
            }
        }
        // One answer for every round of four vCPUs.
        if let Ok(Some(request)) = bench.back(Ring::Access).take() {
            seen[usize::try_from(request.event.subject()).unwrap()] += 1;
            bench.post(Ring::Access, &request.answer());
        }
        let _ = bench.domain.kick(Ring::Access, None, &mut effects);
        effects.clear();
    }
    for request in bench.requests(Ring::Access) {
        seen[usize::try_from(request.event.subject()).unwrap()] += 1;
    }
    assert!(seen.iter().all(|events| *events == 1), "one event a page, no more and no less");
    bench.domain.check_invariants().unwrap();
}

#[test]
fn a_range_is_set_in_spans_and_says_how_far_it_came() {
    let span = mem_event::SET_ACCESS_SPAN;
    let mut bench = Bench::with(DomainConfig { ram: vec![(Gfn(0), span + 8)], ..config(1) });
    let set = |first, count| Control::SetAccess { first: Gfn(first), count, access: AccessType::R };
    let mut effects = mem_event::Effects::default();
    let outcome = bench.domain.apply(&mem_event::Input::Control(set(0, span + 8)), With::NOTHING, &mut effects);
    assert_eq!(outcome, Outcome::Value(span));
    assert_eq!(effects.list, [Effect::Tighten { first: Gfn(0), count: span }]);
    assert_eq!(bench.domain.access_type(Gfn(span - 1)), AccessType::R);
    assert_eq!(bench.domain.access_type(Gfn(span)), AccessType::Rwx);
    let outcome = bench.domain.apply(&mem_event::Input::Control(set(span, 8)), With::NOTHING, &mut effects);
    assert_eq!(outcome, Outcome::Proceed);
    assert_eq!(bench.domain.access_type(Gfn(span + 7)), AccessType::R);
}

#[test]
fn set_and_get_access_have_xens_refusals() {
    let mut bench = Bench::with(DomainConfig { ram: vec![(Gfn(0), 8), (Gfn(16), 8)], ..config(1) });
    let set = |first, count| Control::SetAccess { first: Gfn(first), count, access: AccessType::R };
    for (first, count) in [(0, 25), (24, 1), (0, 0), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(bench.refused(set(first, count)), Errno::EINVAL, "{first} {count}");
    }
    bench.must(set(23, 1));
    bench.must(set(0, 24));
    assert_eq!(bench.control(Control::GetAccess { gfn: Gfn(7) }), Outcome::Value(1));
    assert_eq!(bench.refused(Control::GetAccess { gfn: Gfn(9) }), Errno::ESRCH, "a hole");
    assert_eq!(bench.refused(Control::GetAccess { gfn: Gfn(24) }), Errno::EINVAL);
    bench.must(Control::Drop { gfn: Gfn(7) });
    assert_eq!(bench.refused(Control::GetAccess { gfn: Gfn(7) }), Errno::ESRCH);
}

#[test]
fn only_a_reduction_of_rights_must_be_put_in_force() {
    let mut bench = Bench::new(1);
    let tighten = Effect::Tighten { first: Gfn(3), count: 1 };
    bench.watch(3, AccessType::R);
    assert!(bench.has(&tighten));
    bench.watch(3, AccessType::Rw);
    assert!(!bench.has(&tighten));
    bench.watch(3, AccessType::W);
    assert!(bench.has(&tighten));
}

#[test]
fn the_default_is_for_frames_that_come_into_being() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.must(Control::SetDefaultAccess { access: AccessType::N });
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed, "not for those that are there");
    let _ = bench.step(&mem_event::Input::Unpopulated { first: Gfn(4), count: 2 });
    bench.watch(5, AccessType::Rw);
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Access));
    assert_eq!(bench.domain.access_type(Gfn(4)), AccessType::N);
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.access(0, 5, R), Outcome::Proceed, "nor for those with rights of their own");
}

#[test]
fn what_is_no_ram_is_somebody_elses_and_passes() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    for gfn in [common::FRAMES, 1 << 40, u64::MAX] {
        assert_eq!(bench.access(0, gfn, W), Outcome::Proceed);
        assert_eq!(bench.foreign(gfn, W), Outcome::Proceed);
        assert!(bench.domain.rights().allowed(Gfn(gfn)).is_empty());
    }
}

#[test]
fn an_access_that_cannot_be_is_refused_and_changes_nothing() {
    let mut bench = Bench::new(1);
    let before = bench.domain.state();
    let good = common::touch(3, R);
    let bad = [mem_event::Access { offset: 4096, ..good }, mem_event::Access { rights: Rights::NONE, ..good }];
    for access in bad {
        for input in [mem_event::Input::Access { vcpu: VcpuId(0), access }, mem_event::Input::Foreign { access }] {
            assert!(matches!(bench.step(&input), Outcome::Refused(Errno::EINVAL, _)));
        }
    }
    let outcome = bench.step(&mem_event::Input::Access { vcpu: VcpuId(1), access: good });
    assert!(matches!(outcome, Outcome::Refused(Errno::ESRCH, _)));
    assert_eq!(bench.domain.state(), before);
}
