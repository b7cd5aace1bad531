//! Access rights: what stops a vCPU, what does not.

mod common;

use common::{Bench, R, W, X, answer_due, slot_due};
use mem_event::{AccessType, Effect, Flags, Gfn, Gla, NoConsumer, Outcome, Reason, Rights, Ring, VcpuId, WaitReason};

#[test]
fn a_violation_stops_the_vcpu_until_its_answer() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::R);
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    assert_eq!(bench.access(0, 3, Rights::RW), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    assert_eq!((request.reason, request.gfn, request.offset), (Reason::Violation, Gfn(3), 0x123));
    assert_eq!((request.rights, request.flags), (Rights::RW, Flags::VCPU_PAUSED));
    assert_eq!(request.gla, Some(Gla(0xffff_8000_0000_3123)));
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
