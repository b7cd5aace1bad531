//! Views: each vCPU is judged by its own, what all share is as closed as the strictest that is gone by, and answers switch.

mod common;

use common::{Bench, R, W, X, answer_due, touch};
use mem_event::{
    About, Access, AccessType, Control, CpuEvent, CpuEventKind, Effect, Errno, Event, Flags, Gfn, Gla, Input, Layout,
    MOST_VIEWS, MonitorMode, Outcome, Response, Rights, Ring, VcpuId, ViewId,
};

const ONE: ViewId = ViewId(1);

/// Two vCPUs, a listener, and a view beside the host's.
fn with_a_view(access: AccessType) -> Bench {
    let mut bench = Bench::new(2);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 4), Outcome::Proceed);
    bench.must(Control::SetViews { on: true });
    assert_eq!(bench.control(Control::CreateView { access }), Outcome::Value(1));
    bench
}

fn set(bench: &mut Bench, view: ViewId, gfn: u64, access: AccessType) {
    bench.must(Control::SetViewAccess { view, first: Gfn(gfn), count: 1, access });
}

fn switch(bench: &mut Bench, vcpu: u32, view: ViewId) {
    bench.must(Control::SwitchVcpuView { vcpu: VcpuId(vcpu), view });
}

fn allowed(bench: &Bench, vcpu: u32, gfn: u64) -> (Rights, Rights) {
    let published = bench.domain.rights();
    (published.allowed_to(VcpuId(vcpu), Gfn(gfn)), published.allowed(Gfn(gfn)))
}

fn at(bench: &mut Bench, vcpu: u32, rip: u64, gfn: u64, rights: Rights) -> Outcome {
    bench.step(&Input::Access { vcpu: VcpuId(vcpu), access: Access { rip, ..touch(gfn, rights) } })
}

fn steps(bench: &mut Bench, vcpu: u32) -> Outcome {
    let (kind, rip, gfn) = (CpuEventKind::SingleStep, Gla(0x40_1003), Gfn(0x401));
    bench.step(&Input::CpuEvent { vcpu: VcpuId(vcpu), event: CpuEvent { kind, value: 0, old: 0, number: 0, rip, gfn } })
}

#[test]
fn each_vcpu_is_judged_by_its_own_view() {
    let mut bench = with_a_view(AccessType::Rwx);
    set(&mut bench, ONE, 3, AccessType::Rw);
    switch(&mut bench, 1, ONE);
    assert_eq!(bench.access(0, 3, X), Outcome::Proceed);
    assert_eq!(bench.access(1, 3, X), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    assert_eq!((request.view, request.vcpu), (ONE, VcpuId(1)));
    assert!(request.flags.contains(Flags::ALTERNATE_P2M));
    assert_eq!((allowed(&bench, 0, 3).0, allowed(&bench, 1, 3).0), (Rights::RWX, Rights::RW));
}

#[test]
fn what_its_view_allows_and_anothers_closes_is_done_alone_without_an_event() {
    let mut bench = with_a_view(AccessType::Rwx);
    set(&mut bench, ONE, 3, AccessType::X);
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed, "nobody goes by it yet");
    switch(&mut bench, 1, ONE);
    assert_eq!(bench.effects.list, [Effect::Switched(VcpuId(1)), Effect::Tighten { first: Gfn(3), count: 1 }]);
    assert_eq!(bench.access(0, 3, W), Outcome::Alone);
    assert!(bench.domain.emulation(VcpuId(0)).is_some_and(|it| it.by_view));
    assert_eq!(bench.access(0, 3, X), Outcome::Proceed, "memory is not closed for fetches");
    assert_eq!(bench.requests(Ring::Access), []);
    assert_eq!(bench.step(&Input::Emulated { vcpu: VcpuId(0) }), Outcome::Proceed);
    switch(&mut bench, 1, ViewId::HOST);
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
}

#[test]
fn a_view_lets_an_instruction_do_no_more_than_it_says() {
    let mut bench = with_a_view(AccessType::Rwx);
    set(&mut bench, ONE, 3, AccessType::N);
    bench.watch(4, AccessType::R);
    switch(&mut bench, 1, ONE);
    assert_eq!(at(&mut bench, 0, 7, 3, R), Outcome::Alone);
    // The same instruction's other page is forbidden by the very view that lets it do the first.
    assert_eq!(at(&mut bench, 0, 7, 4, W), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.respond(Ring::Access, &request.answer().with(Flags::EMULATE));
    // What an answer lets through passes whatever rights say, and is not the view's.
    assert_eq!(at(&mut bench, 0, 7, 4, W), Outcome::Alone);
    assert!(bench.domain.emulation(VcpuId(0)).is_some_and(|it| !it.by_view));
    assert_eq!(at(&mut bench, 0, 7, 3, R), Outcome::Alone);
}

#[test]
fn an_answer_switches_its_vcpu_alone() {
    let mut bench = with_a_view(AccessType::Rx);
    bench.must(Control::SwitchView { view: ONE });
    for vcpu in [0, 1] {
        assert_eq!(bench.access(vcpu, 3, W), answer_due(Ring::Access));
    }
    let requests = bench.requests(Ring::Access);
    bench.respond(Ring::Access, &requests[0].answer().switching_to(ViewId::HOST));
    assert!(bench.effects.list.contains(&Effect::Switched(VcpuId(0))));
    assert_eq!([0, 1].map(|vcpu| bench.domain.view_of(VcpuId(vcpu))), [ViewId::HOST, ONE]);
    // Its own view allows it; the other vCPU's closes the memory.
    assert_eq!(bench.access(0, 3, W), Outcome::Alone);
    // A view that there is not is no view, and a plain answer switches nothing.
    bench.respond(Ring::Access, &requests[1].answer().switching_to(ViewId(7)));
    assert_eq!(bench.domain.view_of(VcpuId(1)), ONE);
    assert_eq!(bench.access(1, 3, W), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.respond(Ring::Access, &request.answer());
    assert_eq!(bench.domain.view_of(VcpuId(1)), ONE);
}

#[test]
fn a_fast_step_is_told_to_nobody_and_ends_in_the_view_that_was_named() {
    let mut bench = with_a_view(AccessType::Rx);
    let kind = CpuEventKind::SingleStep;
    bench.must(Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false });
    bench.must(Control::SwitchView { view: ONE });
    assert_eq!(bench.access(0, 3, W), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 5, W), answer_due(Ring::Access));
    let requests = bench.requests(Ring::Access);
    let response = requests[0].answer().switching_to(ViewId::HOST).stepping_into(ONE);
    assert_eq!(response.about, About::Other(1));
    bench.respond(Ring::Access, &response);
    assert_eq!(bench.domain.waiting(VcpuId(0)), None);
    assert_ne!(bench.domain.waiting(VcpuId(1)), None, "only its own request was answered");
    assert_eq!(bench.access(0, 3, W), Outcome::Alone);
    assert!(bench.domain.single_steps(VcpuId(0)));
    assert_eq!(steps(&mut bench, 0), Outcome::Proceed);
    assert_eq!(bench.requests(Ring::Access), []);
    assert_eq!(bench.domain.view_of(VcpuId(0)), ONE);
    assert!(!bench.domain.single_steps(VcpuId(0)));
    assert_eq!(bench.access(0, 3, W), answer_due(Ring::Access));
    // The other one's answer is still its own.
    bench.respond(Ring::Access, &requests[1].answer());
    assert_eq!(bench.domain.waiting(VcpuId(1)), None);
}

#[test]
fn rights_that_give_way_do_so_in_their_view() {
    let mut bench = with_a_view(AccessType::Rwx);
    set(&mut bench, ONE, 3, AccessType::Rx2rw);
    set(&mut bench, ONE, 4, AccessType::N2rwx);
    bench.watch(3, AccessType::R);
    switch(&mut bench, 0, ONE);
    bench.must(Control::SwitchVcpuView { vcpu: VcpuId(1), view: ONE });
    assert_eq!(bench.access(0, 3, W), Outcome::Proceed);
    assert_eq!(bench.access(0, 4, R), Outcome::Proceed);
    let told = bench.request(Ring::Access);
    assert!(matches!(told.event, Event::Violation { gfn: Gfn(4), .. }) && !told.flags.contains(Flags::VCPU_PAUSED));
    let access = |view, gfn| bench.domain.access_type_in(view, Gfn(gfn)).unwrap();
    assert_eq!((access(ONE, 3), access(ONE, 4)), (AccessType::Rw, AccessType::Rwx));
    assert_eq!((access(ViewId::HOST, 3), access(ViewId::HOST, 4)), (AccessType::R, AccessType::Rwx));
}

#[test]
fn devices_go_by_the_hosts_view() {
    let mut bench = with_a_view(AccessType::N);
    bench.must(Control::SwitchView { view: ONE });
    assert_eq!(bench.foreign(3, W), Outcome::Proceed);
    bench.watch(3, AccessType::R);
    assert_eq!(bench.foreign(3, W), Outcome::Retry(Errno::EAGAIN));
    assert!(!bench.request(Ring::Access).flags.contains(Flags::ALTERNATE_P2M));
}

#[test]
fn there_are_ten_views_and_each_ends_when_nobody_goes_by_it() {
    let mut bench = Bench::new(1);
    let view = ViewId(1);
    let access = AccessType::Rwx;
    for control in [
        Control::CreateView { access },
        Control::DestroyView { view },
        Control::SwitchView { view },
        Control::SetViewAccess { view, first: Gfn(1), count: 1, access },
        Control::GetVcpuView { vcpu: VcpuId(0) },
    ] {
        assert_eq!(bench.refused(control), Errno::EOPNOTSUPP);
    }
    bench.must(Control::SetViews { on: true });
    for view in 1..u64::from(MOST_VIEWS) {
        assert_eq!(bench.control(Control::CreateView { access }), Outcome::Value(view));
    }
    assert_eq!(bench.refused(Control::CreateView { access }), Errno::EINVAL);
    assert_eq!(bench.refused(Control::DestroyView { view: ViewId::HOST }), Errno::EINVAL);
    assert_eq!(bench.refused(Control::SwitchView { view: ViewId(10) }), Errno::EINVAL);
    bench.must(Control::SwitchView { view: ViewId(4) });
    assert_eq!(bench.refused(Control::DestroyView { view: ViewId(4) }), Errno::EBUSY);
    bench.must(Control::SwitchView { view: ViewId(5) });
    bench.must(Control::DestroyView { view: ViewId(4) });
    assert_eq!(bench.control(Control::CreateView { access }), Outcome::Value(4));
    assert_eq!(bench.control(Control::GetVcpuView { vcpu: VcpuId(0) }), Outcome::Value(5));
    bench.must(Control::SetViews { on: false });
    assert_eq!(bench.domain.view_of(VcpuId(0)), ViewId::HOST);
}

#[test]
fn a_default_is_of_the_frames_of_which_nothing_else_was_set() {
    let mut bench = with_a_view(AccessType::Rwx);
    set(&mut bench, ONE, 3, AccessType::Rwx);
    bench.must(Control::SwitchView { view: ONE });
    bench.must(Control::SetViewDefault { view: ONE, access: AccessType::R });
    assert_eq!(bench.effects.list, [Effect::Tighten { first: Gfn(0), count: common::FRAMES }]);
    assert_eq!((allowed(&bench, 0, 3).0, allowed(&bench, 0, 4).0), (Rights::RWX, Rights::R));
    let get = |gfn| Control::GetViewAccess { view: ONE, gfn: Gfn(gfn) };
    assert_eq!(bench.control(get(4)), Outcome::Value(AccessType::R as u64));
    assert_eq!(bench.control(get(3)), Outcome::Value(AccessType::Rwx as u64));
    assert_eq!(bench.refused(get(common::FRAMES)), Errno::EINVAL);
}

#[test]
fn a_domain_with_views_is_put_away_and_goes_on() {
    let mut bench = with_a_view(AccessType::Rx);
    set(&mut bench, ONE, 3, AccessType::N);
    switch(&mut bench, 1, ONE);
    let checkpoint = bench.domain.checkpoint();
    let restored = mem_event::Domain::restore(common::config(2), checkpoint).unwrap();
    assert_eq!(restored.state(), bench.domain.state());
    let published = restored.rights();
    assert_eq!(published.allowed_to(VcpuId(1), Gfn(3)), Rights::NONE);
    assert_eq!(published.allowed_to(VcpuId(1), Gfn(4)), AccessType::Rx.rights());
    assert_eq!(published.allowed_to(VcpuId(0), Gfn(3)), Rights::RWX);
    assert_eq!(published.allowed(Gfn(4)), AccessType::Rx.rights());
}

#[test]
fn a_successor_of_a_layout_without_views_is_told_of_none() {
    let mut bench = with_a_view(AccessType::Rx);
    bench.must(Control::SwitchView { view: ONE });
    assert_eq!(bench.access(0, 3, W), answer_due(Ring::Access));
    assert_eq!(bench.step(&Input::ConsumerLost { ring: Ring::Access }), Outcome::Proceed);
    assert_eq!(bench.try_enable(Ring::Access, Layout::Flags32, 4), Outcome::Proceed);
    assert_eq!(bench.request(Ring::Access).flags, Flags::VCPU_PAUSED);
    let answer = Response { view: ONE, ..bench_answer() };
    bench.respond(Ring::Access, &answer);
    assert_eq!(bench.domain.view_of(VcpuId(0)), ONE);
}

/// As an older consumer answers the write of frame 3.
fn bench_answer() -> Response {
    let (vcpu, about) = (0, About::Other(3));
    Response { flags: Flags::VCPU_PAUSED, vcpu, about, other_version: None, view: ViewId::HOST }
}

/// A view in which frame 3 shows a frame beyond RAM, and both vCPUs by turns.
fn with_a_shadow() -> (Bench, Gfn) {
    let mut bench = with_a_view(AccessType::Rwx);
    let shadow = Gfn(common::FRAMES + 7);
    bench.must(Control::Populate { gfn: shadow });
    bench.must(Control::ChangeGfn { view: ONE, old: Gfn(3), new: shadow });
    (bench, shadow)
}

#[test]
fn a_frame_that_shows_another_is_closed_to_all_and_done_alone_without_an_event() {
    let (mut bench, shadow) = with_a_shadow();
    assert_eq!(bench.effects.list, [], "nobody goes by it yet");
    assert_eq!(allowed(&bench, 0, 3), (Rights::RWX, Rights::RWX));
    switch(&mut bench, 1, ONE);
    assert_eq!(bench.effects.list, [Effect::Switched(VcpuId(1)), Effect::Tighten { first: Gfn(3), count: 1 }]);
    assert_eq!((allowed(&bench, 0, 3), allowed(&bench, 1, 3).0), ((Rights::RWX, Rights::NONE), Rights::NONE));
    let published = bench.domain.rights();
    assert_eq!(published.shown_to(VcpuId(1), Gfn(3)), Some((shadow, Rights::RWX)));
    assert_eq!(published.shown_to(VcpuId(0), Gfn(3)), None);
    for rights in [R, W, X] {
        assert_eq!(bench.access(1, 3, rights), Outcome::Alone);
        assert!(bench.domain.emulation(VcpuId(1)).is_some_and(|it| it.by_view));
    }
    assert_eq!(bench.access(0, 3, R), Outcome::Alone, "the memory is closed");
    assert_eq!(bench.access(0, 3, X), Outcome::Proceed, "its own code, which nothing closes");
    assert_eq!(bench.requests(Ring::Access), []);
}

#[test]
fn what_the_view_forbids_of_a_frame_that_shows_another_makes_its_event() {
    let (mut bench, _) = with_a_shadow();
    set(&mut bench, ONE, 3, AccessType::X);
    switch(&mut bench, 1, ONE);
    assert_eq!(bench.access(1, 3, X), Outcome::Alone);
    assert_eq!(bench.access(1, 3, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.respond(Ring::Access, &request.answer().switching_to(ViewId::HOST));
    assert_eq!(bench.access(1, 3, R), Outcome::Proceed, "nobody goes by the view any more");
}

#[test]
fn a_frame_has_the_rights_of_the_one_that_it_shows_and_its_own_again_afterwards() {
    let mut bench = with_a_view(AccessType::Rx);
    set(&mut bench, ONE, 3, AccessType::R);
    set(&mut bench, ONE, 4, AccessType::Rw);
    let rights = |bench: &Bench, gfn| bench.domain.access_type_in(ONE, Gfn(gfn)).unwrap();
    bench.must(Control::ChangeGfn { view: ONE, old: Gfn(3), new: Gfn(4) });
    assert_eq!(rights(&bench, 3), AccessType::Rw);
    // One that shows another leads to that.
    bench.must(Control::ChangeGfn { view: ONE, old: Gfn(5), new: Gfn(3) });
    bench.must(Control::SwitchView { view: ONE });
    assert_eq!(bench.domain.rights().shown_to(VcpuId(0), Gfn(5)), Some((Gfn(4), Rights::RW)));
    for gfn in [3, 5] {
        bench.must(Control::ChangeGfn { view: ONE, old: Gfn(gfn), new: Gfn::INVALID });
        assert_eq!(rights(&bench, gfn), AccessType::Rx);
        assert_eq!(bench.access(0, gfn, R), Outcome::Proceed);
    }
}

#[test]
fn what_a_view_shows_stays_until_no_view_does() {
    let (mut bench, shadow) = with_a_shadow();
    let change = |view, old, new| Control::ChangeGfn { view, old: Gfn(old), new };
    bench.must(change(ONE, 4, shadow));
    bench.must(change(ONE, 5, Gfn(6)));
    assert_eq!(bench.refused(Control::Drop { gfn: shadow }), Errno::EBUSY);
    assert_eq!(bench.try_enable(Ring::Paging, Layout::Flags32, 4), Outcome::Proceed);
    assert_eq!(bench.refused(Control::Nominate { gfn: Gfn(6) }), Errno::EBUSY);
    assert_eq!(bench.refused(Control::Unpin { gfn: Gfn(6) }), Errno::EINVAL, "a view is no foreign mapping");
    bench.must(change(ONE, 3, Gfn::INVALID));
    assert_eq!(bench.refused(Control::Drop { gfn: shadow }), Errno::EBUSY);
    bench.must(Control::DestroyView { view: ONE });
    bench.must(Control::Drop { gfn: shadow });
    assert_eq!(bench.effects.list, [Effect::Punch(shadow)]);
    assert_eq!(bench.refused(Control::Drop { gfn: shadow }), Errno::ENOENT);
    assert_eq!(bench.refused(Control::Pin { gfn: shadow }), Errno::EINVAL);
    bench.must(Control::Pin { gfn: Gfn(6) });
    bench.must(Control::Unpin { gfn: Gfn(6) });
}

#[test]
fn what_cannot_be_shown_is_refused_as_in_xen() {
    let (mut bench, shadow) = with_a_shadow();
    let change = |view, old, new| Control::ChangeGfn { view, old, new };
    assert_eq!(bench.refused(change(ViewId(2), Gfn(3), Gfn(4))), Errno::EINVAL);
    assert_eq!(bench.refused(change(ViewId::HOST, Gfn(3), Gfn(4))), Errno::EINVAL);
    for (old, new) in [(3, shadow.0 + 1), (shadow.0 + 1, 3), (shadow.0 + 1, shadow.0)] {
        assert_eq!(bench.refused(change(ONE, Gfn(old), Gfn(new))), Errno::ESRCH);
    }
    // One beyond RAM may show another: so a guest that looked there would find nothing.
    bench.must(Control::Populate { gfn: Gfn(common::FRAMES) });
    bench.must(change(ONE, shadow, Gfn(common::FRAMES)));
    bench.must(change(ONE, Gfn(9), Gfn::INVALID));
    for (gfn, errno) in
        [(0, Errno::EBUSY), (common::FRAMES - 1, Errno::EBUSY), (1 << 26, Errno::EINVAL), (u64::MAX, Errno::EINVAL)]
    {
        assert_eq!(bench.refused(Control::Populate { gfn: Gfn(gfn) }), errno);
    }
    assert_eq!(bench.refused(Control::Populate { gfn: shadow }), Errno::EBUSY);
}

#[test]
fn a_domain_with_frames_beyond_its_ram_is_put_away_and_goes_on() {
    let (mut bench, shadow) = with_a_shadow();
    switch(&mut bench, 1, ONE);
    let checkpoint = bench.domain.checkpoint();
    let restored = mem_event::Domain::restore(common::config(2), checkpoint).unwrap();
    assert_eq!(restored.state(), bench.domain.state());
    assert_eq!(restored.rights().shown_to(VcpuId(1), Gfn(3)), Some((shadow, Rights::RWX)));
    assert_eq!(restored.rights().allowed(Gfn(3)), Rights::NONE);
}
