//! Paging: a frame leaves for the pager and comes back.

mod common;

use common::{Bench, R, W, answer_due, flags};
use mem_event::{AccessType, Control, Effect, Errno, Flags, Gfn, Outcome, P2mType, Reason, Rights, Ring, VcpuId};

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
    assert_eq!((request.reason, request.gfn, request.p2mt), (Reason::Paging, Gfn(5), P2mType::RamPaged));
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
    assert_eq!(request.p2mt, P2mType::RamPagingOut);
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
