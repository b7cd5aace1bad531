//! Rights and those who are no vCPU: a device that touches a watched frame.

mod common;

use common::{Bench, R, W, X, answer_due, slot_due};
use mem_event::{AccessType, Control, Effect, Errno, Event, Flags, Gfn, NoConsumer, Outcome, Rights, Ring, VcpuId};

const WAITS: Outcome = Outcome::Retry(Errno::EAGAIN);

fn watched(slots: u32) -> Bench {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, slots);
    bench.watch(3, AccessType::N);
    bench
}

#[test]
fn a_device_on_a_watched_frame_is_an_event_that_stops_nobody_and_it_comes_back() {
    let mut bench = watched(0);
    assert_eq!(bench.foreign(3, W), WAITS);
    let request = bench.request(Ring::Access);
    assert_eq!((request.flags, request.vcpu, request.event.rights()), (Flags::FOREIGN, VcpuId(0), W));
    assert!(matches!(request.event, Event::Violation { gfn: Gfn(3), offset: 0x123, .. }));
    let slots = bench.domain.free_slots(Ring::Access);
    assert_eq!(bench.foreign(3, R), WAITS, "one request is out for all who come for the frame");
    assert!(bench.effects.list.is_empty());
    assert_eq!(bench.domain.free_slots(Ring::Access), slots);
    bench.watch(3, AccessType::Rw);
    assert_eq!(bench.foreign(3, Rights::RW), WAITS, "it goes on after the answer, not after the rights");
    bench.answer(Ring::Access, &request);
    assert!(bench.has(&Effect::RetryForeign) && bench.woken().is_empty());
    assert_eq!(bench.foreign(3, Rights::RW), Outcome::Proceed);
    assert_eq!(bench.foreign(3, X), WAITS);
}

#[test]
fn rights_that_are_the_same_after_the_answer_make_the_same_event_for_a_device_again() {
    let mut bench = watched(0);
    for _ in 0..3 {
        assert_eq!(bench.foreign(3, W), WAITS);
        let request = bench.request(Ring::Access);
        assert_eq!((request.flags, request.event.rights()), (Flags::FOREIGN, W));
        bench.answer(Ring::Access, &request);
        assert!(bench.has(&Effect::RetryForeign));
    }
}

#[test]
fn the_answer_to_a_device_leaves_a_vcpu_stopped_on_the_same_frame() {
    let mut bench = watched(0);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.foreign(3, R), WAITS);
    let requests = bench.requests(Ring::Access);
    bench.answer(Ring::Access, &requests[1]);
    assert!(bench.woken().is_empty());
    assert_eq!(bench.domain.pause_count(VcpuId(0)), 1);
    assert_eq!(bench.foreign(3, R), WAITS);
    bench.answer(Ring::Access, &requests[0]);
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.requests(Ring::Access).len(), 1, "the device's second request is still out");
}

#[test]
fn rx2rw_and_n2rwx_are_for_devices_too() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::Rx2rw);
    assert_eq!(bench.foreign(3, R), Outcome::Proceed);
    assert_eq!(bench.foreign(3, W), Outcome::Proceed);
    assert_eq!(bench.domain.access_type(Gfn(3)), AccessType::Rw);
    bench.watch(4, AccessType::N2rwx);
    assert_eq!(bench.foreign(4, W), Outcome::Proceed);
    assert_eq!(bench.domain.access_type(Gfn(4)), AccessType::Rwx);
    assert_eq!(bench.request(Ring::Access).flags, Flags::FOREIGN);
}

#[test]
fn a_device_that_finds_no_listener_does_what_the_rings_setting_says() {
    let policy = |policy| Control::SetNoConsumer { ring: Ring::Access, policy };
    let mut bench = Bench::new(1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.foreign(3, R), Outcome::Retry(Errno::ENOSYS));
    bench.enable(Ring::Access, 0);
    assert!(bench.has(&Effect::RetryForeign), "it hears of the listener");
    assert_eq!(bench.foreign(3, R), WAITS);
    bench.must(Control::Disable { ring: Ring::Access, drain: false });
    assert!(bench.has(&Effect::RetryForeign), "and that it is gone");
    assert_eq!(bench.foreign(3, R), Outcome::Retry(Errno::ENOSYS));
    bench.must(policy(NoConsumer::Relax));
    assert!(bench.has(&Effect::RetryForeign));
    assert_eq!(bench.foreign(3, R), Outcome::Proceed);
    assert_eq!(bench.domain.access_type(Gfn(3)), AccessType::Rwx);
    bench.watch(3, AccessType::N);
    bench.must(policy(NoConsumer::Crash));
    assert_eq!(bench.foreign(3, R), Outcome::Crashed);
}

#[test]
fn a_devices_request_that_a_lost_listener_left_is_its_successors() {
    let mut bench = watched(0);
    assert_eq!(bench.foreign(3, W), WAITS);
    let _ = bench.step(&mem_event::Input::ConsumerLost { ring: Ring::Access });
    assert_eq!(bench.foreign(3, W), Outcome::Retry(Errno::ENOSYS));
    bench.enable(Ring::Access, 0);
    assert_eq!(bench.foreign(3, W), WAITS, "it is out already");
    let request = bench.request(Ring::Access);
    assert_eq!(request.flags, Flags::FOREIGN);
    bench.watch(3, AccessType::Rwx);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.foreign(3, W), Outcome::Proceed);
}

#[test]
fn a_frame_that_a_device_needs_back_is_checked_when_it_is_there() {
    let mut bench = watched(0);
    bench.enable(Ring::Paging, 0);
    bench.page_out(3);
    assert_eq!(bench.foreign(3, W), Outcome::Retry(Errno::ENOENT));
    assert!(bench.requests(Ring::Access).is_empty());
    assert_eq!(bench.prep(3), Outcome::Proceed);
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert_eq!(bench.foreign(3, W), WAITS);
    assert_eq!(bench.request(Ring::Access).flags, Flags::FOREIGN);
}

#[test]
fn mapping_a_watched_frame_asks_for_no_rights() {
    let mut bench = watched(0);
    bench.must(Control::Pin { gfn: Gfn(3) });
    assert!(bench.requests(Ring::Access).is_empty());
}

#[test]
fn devices_leave_a_slot_of_the_access_ring_to_the_guest() {
    let mut bench = watched(2);
    bench.watch(4, AccessType::N);
    assert_eq!(bench.foreign(3, W), WAITS);
    assert_eq!(bench.foreign(4, W), Outcome::Retry(Errno::EBUSY));
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Access), "the second slot is the guest's");
}

/// A ring of one slot cannot leave one to the guest and let a device ever go on. The device has it until its answer, which needs no
/// vCPU to run, and then a vCPU that waits comes first, however long others have come for it.
#[test]
fn on_a_ring_of_one_slot_a_device_delays_the_guest_by_one_answer() {
    let mut bench = watched(1);
    bench.watch(4, AccessType::N);
    assert_eq!(bench.foreign(3, W), WAITS);
    assert_eq!(bench.access(1, 4, R), slot_due(Ring::Access));
    assert_eq!(bench.foreign(4, W), Outcome::Retry(Errno::EBUSY));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [1]);
    assert_eq!(bench.foreign(3, W), Outcome::Retry(Errno::EBUSY), "the slot is promised");
    assert_eq!(bench.access(1, 4, R), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert!(bench.has(&Effect::RetryForeign));
    assert_eq!(bench.foreign(4, W), WAITS);
}
