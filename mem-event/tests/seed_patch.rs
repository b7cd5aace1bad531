//! The patch from which this project started ("mem_event: use wait queue when ring is full", v5, xen-devel, 2011-12-05): its six defects as
//! schedules of the policy `wait-queue-v5`, and the same schedules on the engine.

mod common;

use common::{Bench, R, answer_due, consumer_due, slot_due};
use mem_event::flow::{Flow, FlowKind, Place, Put, Stops, Try};
use mem_event::{AccessType, Control, Effect, Errno, Flags, Gfn, Input, Outcome, Ring, VcpuId};

const DONE: Put = Put::Done { blocked: false };

/// A ring under the patch, with as many slots in use as say so.
struct Patch {
    flow: Flow,
    stops: Stops,
    slots: u32,
    used: u32,
}

impl Patch {
    fn new(slots: u32, stops: Stops) -> Patch {
        Patch { flow: Flow::new(FlowKind::WaitQueueV5, Ring::Access), stops, slots, used: 0 }
    }

    fn enable(&mut self) {
        self.flow.enable(self.slots, &mut self.stops);
    }

    fn disable(&mut self) -> Result<(), Errno> {
        self.flow.disable(&mut self.stops).map_err(|_| Errno::EBUSY)
    }

    fn free(&self) -> u32 {
        self.slots - self.used
    }

    fn claim(&mut self, vcpu: u32) -> Try {
        self.flow.claim(VcpuId(vcpu), self.free(), &mut self.stops)
    }

    fn put(&mut self, vcpu: Option<u32>) -> Put {
        let free = self.free();
        let put = match vcpu {
            Some(vcpu) => self.flow.put(VcpuId(vcpu), true, free, &mut self.stops),
            None => self.flow.put_foreign(free, &mut self.stops),
        };
        self.used += u32::from(put == DONE);
        put
    }

    fn pause(&mut self, vcpu: u32) {
        self.stops.pause(VcpuId(vcpu));
    }

    fn respond(&mut self, unpause: Option<u32>) {
        self.used -= 1;
        if let Some(vcpu) = unpause {
            self.stops.answer(VcpuId(vcpu));
        }
        self.flow.answered(self.slots - self.used, &mut self.stops);
    }

    fn runs(&self, vcpu: u32) -> bool {
        self.stops.runs(VcpuId(vcpu))
    }
}

#[test]
fn pausing_before_a_put_that_sleeps_hangs_the_patch_and_not_the_engine() {
    let mut patch = Patch::new(1, Stops::new(2));
    patch.enable();
    for (vcpu, put) in [(0, DONE), (1, Put::Asleep)] {
        assert_eq!(patch.claim(vcpu), Try::Slot);
        patch.pause(vcpu);
        assert_eq!(patch.put(Some(vcpu)), put);
    }
    patch.respond(Some(0));
    assert_eq!(patch.used, 0, "the ring is empty");
    let stop = patch.stops.of(VcpuId(1));
    assert_eq!(
        (stop.pauses, patch.flow.sleepers(&patch.stops)),
        (1, (0, 0)),
        "vCPU 1 was woken, once of two pauses, and never puts its request"
    );

    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.access(1, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.request(Ring::Access).vcpu, VcpuId(1));
}

#[test]
fn a_drop_event_without_a_claim_ruins_the_patchs_accounts_and_not_the_engines() {
    let mut patch = Patch::new(8, Stops::new(2));
    patch.enable();
    assert_eq!(patch.flow.claim_drop(None, 8, &mut patch.stops), Try::Slot);
    assert_eq!(patch.put(None), DONE, "the toolstack balloons a paged frame");
    assert_eq!(patch.flow.claims(), 0xffff);
    assert_eq!(patch.claim(0), Try::Slot);
    assert_eq!(patch.put(Some(0)), Put::Asleep, "from now on every vCPU sleeps");
    patch.respond(None);
    assert_eq!(patch.put(Some(0)), Put::Asleep, "whatever is answered");
    assert_eq!(patch.flow.claim_foreign(8), Try::Refused, "and no foreign claim succeeds");

    let mut bench = Bench::new(2);
    bench.enable(Ring::Paging, 8);
    (0..4).for_each(|gfn| bench.page_out(gfn));
    bench.must(Control::Drop { gfn: Gfn(0) });
    assert_eq!(bench.access(0, 1, R), answer_due(Ring::Paging));
    assert_eq!(bench.foreign(2, R), Outcome::Retry(Errno::ENOENT));
    assert_eq!(bench.domain.free_slots(Ring::Paging), 5);
}

#[test]
fn a_drop_event_without_a_ring_writes_through_a_stale_pointer_in_the_patch_and_nowhere_in_the_engine() {
    let mut patch = Patch::new(8, Stops::new(1));
    patch.enable();
    assert_eq!(patch.disable(), Ok(()));
    assert_eq!(patch.flow.claim_drop(Some(VcpuId(0)), 8, &mut patch.stops), Try::Slot);
    assert_eq!(patch.put(Some(0)), Put::Fault);

    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 8);
    bench.page_out(0);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    assert_eq!(bench.step(&Input::Balloon { vcpu: VcpuId(0), gfn: Gfn(0) }), Outcome::Proceed);
    assert!(bench.effects.list.is_empty());
}

#[test]
fn before_the_first_enable_an_interrupt_wakes_the_patchs_sleepers_and_not_the_engines() {
    let mut patch = Patch::new(8, Stops::new(1));
    for _ in 0..1000 {
        // No listener, access required: it sleeps "until there is one".
        assert_eq!(patch.flow.without_listener(VcpuId(0), &mut patch.stops), Try::Asleep(Place::Flag));
        assert!(!patch.runs(0));
        patch.stops.interrupt(VcpuId(0));
        assert!(patch.runs(0), "it spins on the fault");
    }
    patch.enable();
    let _ = patch.flow.without_listener(VcpuId(0), &mut patch.stops);
    patch.stops.interrupt(VcpuId(0));
    assert!(!patch.runs(0), "only after an enable the bit is the right one");

    let mut bench = Bench::new(1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), consumer_due(Ring::Access));
    let before = bench.domain.state();
    for _ in 0..1000 {
        // The interrupted vCPU looks again: it still waits, and nothing has changed.
        assert_eq!(bench.access(0, 3, R), consumer_due(Ring::Access));
    }
    assert_eq!(bench.domain.state(), before);
}

#[test]
fn pausing_after_the_put_loses_a_fast_answer_where_counts_have_a_floor_and_not_in_the_engine() {
    // As posted, on the signed count of 2011, it corrects itself; on the count of Xen 4.5, which has a floor, it does not.
    for (stops, runs) in [(Stops::new(1), true), (Stops::with_floor(1), false)] {
        let mut patch = Patch::new(8, stops);
        patch.enable();
        assert_eq!(patch.claim(0), Try::Slot);
        assert_eq!(patch.put(Some(0)), DONE);
        patch.respond(Some(0));
        patch.pause(0);
        assert_eq!((patch.used, patch.runs(0)), (0, runs), "all is answered");
    }

    let mut bench = Bench::new(1);
    bench.enable(Ring::Sharing, 0);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(3), count: 1 });
    bench.must(Control::SetBudget { frames: 0 });
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Sharing));
    let effects = &bench.effects.list;
    assert!(matches!(effects[0], Effect::Requested { .. }), "the step that puts has paused: {effects:?}");
    assert_eq!(bench.domain.pause_count(VcpuId(0)), 1);
    let request = bench.request(Ring::Sharing);
    assert_eq!(request.flags, Flags::VCPU_PAUSED);
    bench.answer(Ring::Sharing, &request);
    assert_eq!(bench.waiting(0), None);
}

#[test]
fn a_dead_consumer_leaves_the_patch_busy_for_ever_and_the_engine_goes_on() {
    let mut patch = Patch::new(1, Stops::new(3));
    patch.enable();
    for (vcpu, put) in [(0, DONE), (1, Put::Asleep)] {
        assert_eq!(patch.claim(vcpu), Try::Slot);
        assert_eq!(patch.put(Some(vcpu)), put);
    }
    assert_eq!(patch.disable(), Err(Errno::EBUSY));
    // A claim that is given back wakes nobody, though there is room.
    assert_eq!(patch.claim(2), Try::Slot);
    patch.used = 0;
    patch.flow.cancel(false, 1, &mut patch.stops);
    assert_eq!((patch.free(), patch.flow.sleepers(&patch.stops)), (1, (1, 0)));
    assert_eq!(patch.disable(), Err(Errno::EBUSY), "and nobody will ever answer");

    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    let disable = Control::Disable { ring: Ring::Access, drain: false };
    assert_eq!(bench.refused(disable.clone()), Errno::EBUSY);
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    bench.must(disable);
    assert_eq!(bench.woken(), [0, 1]);
}
