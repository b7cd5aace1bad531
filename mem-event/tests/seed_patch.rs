//! The patch from which this project started ("mem_event: use wait queue when ring is full", v5, xen-devel, 2011-12-05) as a small
//! model, its six defects as schedules, and the same schedules on the engine.

mod common;

use common::{Bench, R, answer_due, consumer_due, slot_due};
use mem_event::{AccessType, Control, Effect, Errno, Flags, Gfn, Input, Outcome, Ring, VcpuId};
use std::collections::VecDeque;

/// Bits of a vCPU's `pause_flags`.
const VPF_BLOCKED: u32 = 1 << 0;
const VPF_MEM_EVENT: u32 = 1 << 4;

#[derive(Clone, Default)]
struct Vcpu {
    pause_count: i32,
    pause_flags: u32,
    /// Inside `wait_event`, with the request that it will put.
    in_put: Option<u32>,
}

impl Vcpu {
    fn runs(&self) -> bool {
        self.pause_count == 0 && self.pause_flags == 0
    }
}

/// One `mem_event_domain` as the patch has it.
struct Patch {
    slots: u16,
    used: u16,
    ring: Option<VecDeque<u32>>,
    target_producers: u16,
    foreign_producers: u16,
    /// `med->bit`: 0 until the first enable.
    bit: u32,
    queue: VecDeque<usize>,
    vcpus: Vec<Vcpu>,
}

#[derive(Debug, PartialEq, Eq)]
enum Put {
    Done,
    Sleeps,
    Lost,
    /// The request is written through a stale pointer.
    Fault,
}

impl Patch {
    fn new(slots: u16, vcpus: usize) -> Patch {
        Patch {
            slots,
            used: 0,
            ring: None,
            target_producers: 0,
            foreign_producers: 0,
            bit: VPF_BLOCKED,
            queue: VecDeque::new(),
            vcpus: vec![Vcpu::default(); vcpus],
        }
    }

    fn enable(&mut self) {
        self.ring = Some(VecDeque::new());
        self.bit = VPF_MEM_EVENT;
    }

    fn disable(&mut self) -> Result<(), Errno> {
        if !self.queue.is_empty() {
            return Err(Errno::EBUSY);
        }
        self.ring = None;
        Ok(())
    }

    fn free(&self) -> u16 {
        self.slots - self.used
    }

    /// `mem_event_claim_slot`: a target's claim always succeeds.
    fn claim(&mut self, target: bool) -> bool {
        if target {
            self.target_producers = self.target_producers.wrapping_add(1);
            return true;
        }
        // C promotes the u16 to int.
        let taken = u32::from(self.foreign_producers) + u32::from(self.target_producers) + 1;
        let room = taken < u32::from(self.free());
        if room {
            self.foreign_producers = self.foreign_producers.wrapping_add(1);
        }
        room
    }

    /// `mem_event_release_slot`: nobody is woken.
    fn release(&mut self, target: bool) {
        let producers = if target { &mut self.target_producers } else { &mut self.foreign_producers };
        *producers = producers.wrapping_sub(1);
    }

    /// `_mem_event_put_request`.
    fn try_put(&mut self, target: bool, request: u32) -> bool {
        if self.free() == 0 || target && self.free() <= self.foreign_producers {
            return false;
        }
        self.used += 1;
        if let Some(ring) = &mut self.ring {
            ring.push_back(request);
        }
        self.release(target);
        true
    }

    /// `mem_event_put_request`: there is no test for a ring.
    fn put(&mut self, vcpu: Option<usize>, request: u32) -> Put {
        if self.ring.is_none() {
            return Put::Fault;
        }
        if self.try_put(vcpu.is_some(), request) {
            return Put::Done;
        }
        let Some(vcpu) = vcpu else { return Put::Lost };
        // wait_event: asleep on the queue is one more pause.
        self.vcpus[vcpu].in_put = Some(request);
        self.vcpus[vcpu].pause_count += 1;
        self.queue.push_back(vcpu);
        Put::Sleeps
    }

    fn pause(&mut self, vcpu: usize) {
        self.vcpus[vcpu].pause_count += 1;
    }

    /// A response frees a slot, unpauses its vCPU, and wakes as many as there are free slots.
    fn respond(&mut self, unpause: Option<usize>) {
        self.used -= 1;
        if let Some(vcpu) = unpause {
            // With the floor that 868d9b99b3 brought.
            self.vcpus[vcpu].pause_count = (self.vcpus[vcpu].pause_count - 1).max(0);
        }
        for _ in 0..self.free().min(u16::try_from(self.queue.len()).unwrap_or(u16::MAX)) {
            if let Some(vcpu) = self.queue.pop_front() {
                self.vcpus[vcpu].pause_count -= 1;
            }
        }
        self.run();
    }

    /// Whoever was woken inside `put` and runs, tries again.
    fn run(&mut self) {
        for vcpu in 0..self.vcpus.len() {
            let Some(request) = self.vcpus[vcpu].in_put.filter(|_| self.vcpus[vcpu].runs()) else { continue };
            self.vcpus[vcpu].in_put = None;
            let _ = self.put(Some(vcpu), request);
        }
    }

    /// `mem_event_mark_and_sleep`.
    fn mark_and_sleep(&mut self, vcpu: usize) {
        self.vcpus[vcpu].pause_flags |= self.bit;
    }

    /// An interrupt wakes a blocked vCPU.
    fn interrupt(&mut self, vcpu: usize) {
        self.vcpus[vcpu].pause_flags &= !VPF_BLOCKED;
    }
}

#[test]
fn pausing_before_a_put_that_sleeps_hangs_the_patch_and_not_the_engine() {
    let mut patch = Patch::new(1, 2);
    patch.enable();
    for vcpu in 0..2 {
        assert!(patch.claim(true));
        patch.pause(vcpu);
        let _ = patch.put(Some(vcpu), 0);
    }
    patch.respond(Some(0));
    assert_eq!(patch.used, 0, "the ring is empty");
    assert!(!patch.vcpus[1].runs() && patch.vcpus[1].in_put.is_some(), "and vCPU 1 never puts its request");

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
    let mut patch = Patch::new(8, 2);
    patch.enable();
    assert_eq!(patch.put(None, 0), Put::Done, "the toolstack balloons a paged frame");
    assert_eq!(patch.foreign_producers, 0xffff);
    assert!(patch.claim(true));
    assert_eq!(patch.put(Some(0), 1), Put::Sleeps, "from now on every vCPU sleeps");
    patch.respond(None);
    assert!(patch.vcpus[0].in_put.is_some(), "whatever is answered");
    assert!(!patch.claim(false), "and no foreign claim succeeds");

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
    let mut patch = Patch::new(8, 1);
    patch.enable();
    assert_eq!(patch.disable(), Ok(()));
    assert_eq!(patch.put(Some(0), 0), Put::Fault);

    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 8);
    bench.page_out(0);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    assert_eq!(bench.step(&Input::Balloon { vcpu: VcpuId(0), gfn: Gfn(0) }), Outcome::Proceed);
    assert!(bench.effects.list.is_empty());
}

#[test]
fn before_the_first_enable_an_interrupt_wakes_the_patchs_sleepers_and_not_the_engines() {
    let mut patch = Patch::new(8, 1);
    let mut faults = 0;
    for _ in 0..1000 {
        // No listener, access required: it sleeps "until there is one".
        faults += 1;
        patch.mark_and_sleep(0);
        patch.interrupt(0);
        assert!(patch.vcpus[0].runs());
    }
    assert_eq!(faults, 1000, "it spins on the fault");
    patch.enable();
    patch.mark_and_sleep(0);
    patch.interrupt(0);
    assert!(!patch.vcpus[0].runs(), "only after an enable the bit is the right one");

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
fn pausing_after_the_put_loses_a_fast_answer_in_the_patch_and_not_in_the_engine() {
    let mut patch = Patch::new(8, 1);
    patch.enable();
    assert!(patch.claim(true));
    assert_eq!(patch.put(Some(0), 0), Put::Done);
    patch.respond(Some(0));
    patch.pause(0);
    assert!(patch.used == 0 && !patch.vcpus[0].runs(), "all is answered, and it never runs again");

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
    let mut patch = Patch::new(1, 3);
    patch.enable();
    for vcpu in 0..2 {
        assert!(patch.claim(true));
        let _ = patch.put(Some(vcpu), 0);
    }
    assert_eq!(patch.disable(), Err(Errno::EBUSY));
    // A claim that is given back wakes nobody, though it makes room.
    assert!(patch.claim(true));
    patch.release(true);
    patch.used = 0;
    assert!(patch.free() > 0 && !patch.queue.is_empty());
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
