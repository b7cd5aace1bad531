//! The four policies of flow control, each by itself: what a full ring does to a vCPU, and what an answer does to those that wait.

use mem_event::flow::{Flow, FlowKind, Place, Put, Stops, Try};
use mem_event::{Ring, VcpuId};

const DONE: Put = Put::Done { blocked: false };
const BLOCKED: Put = Put::Done { blocked: true };

/// A ring without a page, and vCPUs that do as they are told.
struct Bench {
    flow: Flow,
    stops: Stops,
    slots: u32,
    out: u32,
}

impl Bench {
    fn new(flow: Flow, slots: u32, vcpus: u32) -> Bench {
        let mut bench = Bench { flow, stops: Stops::new(vcpus), slots, out: 0 };
        bench.flow.enable(slots, &mut bench.stops);
        bench
    }

    fn of(kind: FlowKind, slots: u32, vcpus: u32) -> Bench {
        Bench::new(Flow::new(kind, Ring::Access), slots, vcpus)
    }

    fn free(&self) -> u32 {
        self.slots - self.out
    }

    fn claim(&mut self, vcpu: u32) -> Try {
        self.flow.claim(VcpuId(vcpu), self.free(), &mut self.stops)
    }

    fn again(&mut self, vcpu: u32, place: Place) -> Try {
        self.flow.claim_again(VcpuId(vcpu), place, self.free(), &mut self.stops)
    }

    fn put(&mut self, vcpu: u32, paused: bool) -> Put {
        let put = self.flow.put(VcpuId(vcpu), paused, self.free(), &mut self.stops);
        self.out += u32::from(matches!(put, Put::Done { .. }));
        put
    }

    /// Claim, pause, put.
    fn event(&mut self, vcpu: u32) -> Put {
        assert_eq!(self.claim(vcpu), Try::Slot);
        self.stops.pause(VcpuId(vcpu));
        self.put(vcpu, true)
    }

    /// The oldest request is answered; who is woken.
    fn answer(&mut self, vcpu: Option<u32>) -> Vec<u32> {
        self.out -= 1;
        let free = self.free();
        self.flow.taken(free, &mut self.stops);
        if let Some(vcpu) = vcpu {
            self.stops.answer(VcpuId(vcpu));
        }
        self.flow.answered(free, &mut self.stops);
        self.stops.woken.drain(..).map(|it| it.0).collect()
    }
}

#[test]
fn under_queue_a_freed_slot_is_the_oldest_waiters_before_it_runs() {
    let mut bench = Bench::of(FlowKind::Queue, 1, 4);
    assert_eq!(bench.event(0), DONE);
    assert_eq!(bench.claim(1), Try::Asleep(Place::Line));
    assert_eq!(bench.claim(2), Try::Asleep(Place::Line));
    assert_eq!(bench.answer(Some(0)), [1, 0]);
    assert_eq!(bench.claim(0), Try::Asleep(Place::Line), "the answered vCPU is faster, and finds the slot taken");
    assert_eq!(bench.again(1, Place::Line), Try::Slot);
}

#[test]
fn under_check_ring_an_answer_wakes_everybody_and_all_but_one_sleep_again() {
    let mut bench = Bench::of(FlowKind::CheckRing, 1, 4);
    assert_eq!(bench.event(0), DONE);
    for vcpu in 1..4 {
        assert_eq!(bench.claim(vcpu), Try::Asleep(Place::Flag));
    }
    assert_eq!(bench.answer(Some(0)), [0, 1, 2, 3]);
    assert_eq!(bench.again(3, Place::Flag), Try::Slot, "whoever is first");
    assert_eq!(bench.again(1, Place::Flag), Try::Asleep(Place::Flag));
    assert_eq!(bench.again(2, Place::Flag), Try::Asleep(Place::Flag));
}

#[test]
fn under_check_ring_an_answer_on_one_ring_wakes_the_sleepers_of_another() {
    let mut bench = Bench::of(FlowKind::CheckRing, 1, 2);
    assert_eq!(bench.event(0), DONE);
    assert_eq!(bench.claim(1), Try::Asleep(Place::Flag));
    let mut other = Flow::new(FlowKind::CheckRing, Ring::Paging);
    other.enable(1, &mut bench.stops);
    assert_eq!(bench.stops.woken, [VcpuId(1)], "so does the enable of another");
    bench.stops.woken.clear();
    assert_eq!(bench.claim(1), Try::Asleep(Place::Flag));
    other.answered(1, &mut bench.stops);
    assert_eq!(bench.stops.woken, [VcpuId(1)]);
}

#[test]
fn under_v5_a_vcpu_claims_on_a_full_ring_and_sleeps_in_its_put() {
    let mut bench = Bench::of(FlowKind::WaitQueueV5, 1, 2);
    assert_eq!(bench.claim(0), Try::Slot);
    assert_eq!(bench.put(0, false), DONE);
    assert_eq!(bench.claim(1), Try::Slot, "full, and claimed all the same");
    assert_eq!(bench.put(1, false), Put::Asleep);
    assert_eq!(bench.answer(None), [1]);
    assert_eq!(bench.put(1, false), DONE);
}

#[test]
fn under_blocked_2012_a_woken_vcpu_must_claim_again_and_the_loser_goes_to_the_tail() {
    let mut bench = Bench::of(FlowKind::Blocked2012, 1, 3);
    assert_eq!(bench.event(0), DONE);
    assert_eq!(bench.claim(1), Try::Asleep(Place::Claim));
    assert_eq!(bench.claim(2), Try::Asleep(Place::Claim));
    assert_eq!(bench.answer(Some(0)), [1, 0]);
    assert_eq!(bench.claim(0), Try::Slot, "the answered vCPU is faster");
    assert_eq!(bench.again(1, Place::Claim), Try::Asleep(Place::Claim));
    bench.stops.pause(VcpuId(0));
    assert_eq!(bench.put(0, true), DONE);
    assert_eq!(bench.answer(Some(0)), [2, 0], "vCPU 1 stands behind vCPU 2 now");
}

#[test]
fn under_blocked_2012_only_posters_that_run_on_are_throttled() {
    let mut bench = Bench::of(FlowKind::Blocked2012, 8, 4);
    for sent in 1..=8 {
        assert_eq!(bench.claim(0), Try::Slot);
        let put = bench.put(0, false);
        assert_eq!(
            put,
            if sent < 5 { DONE } else { BLOCKED },
            "put {sent}: fewer than four slots are left from the fifth on"
        );
        if put == BLOCKED {
            assert!(!bench.stops.runs(VcpuId(0)));
            break;
        }
    }
    assert_eq!(bench.event(1), DONE, "an event-paused poster is not");
    assert_eq!(bench.stops.woken, [VcpuId(0)], "and its put woke the throttled one, though nothing was answered");
}
