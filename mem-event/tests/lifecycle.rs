//! Rings begin and end, consumers come and go, domains crash and die.

mod common;

use common::{Bench, R, W, answer_due, config, consumer_due, slot_due, touch};
use mem_event::wire::vm_event::Registers;
use mem_event::{
    AccessType, Control, DomainConfig, Effect, Errno, Flags, Gfn, Input, Layout, NoConsumer, Outcome, P2mType, Ring,
    VcpuId, WaitReason, With,
};

fn enable(ring: Ring) -> Control {
    Control::Enable { ring, layout: Layout::Flags32, slots: 0 }
}

fn disable(ring: Ring) -> Control {
    Control::Disable { ring, drain: false }
}

#[test]
fn enable_is_refused_in_xens_order_with_xens_numbers() {
    let all = DomainConfig { hap: false, passthrough: true, populate_on_demand: true, ..config(1) };
    let mut bench = Bench::with(all.clone());
    assert_eq!(Ring::ALL.map(|ring| bench.refused(enable(ring))), [Errno::ENODEV; 3]);
    let mut bench = Bench::with(DomainConfig { hap: true, ..all.clone() });
    assert_eq!(bench.refused(enable(Ring::Paging)), Errno::EMLINK);
    bench.enable(Ring::Access, 0);
    bench.enable(Ring::Sharing, 0);
    let mut bench = Bench::with(DomainConfig { hap: true, passthrough: false, ..all });
    assert_eq!(bench.refused(enable(Ring::Paging)), Errno::EXDEV);
}

#[test]
fn a_second_enable_is_busy_and_a_bad_number_of_slots_invalid() {
    let mut bench = Bench::new(1);
    for slots in [3, 128, u32::MAX] {
        for ring in Ring::ALL {
            let control = Control::Enable { ring, layout: Layout::Flags32, slots };
            assert_eq!(bench.refused(control), Errno::EINVAL, "{slots} slots");
        }
    }
    let control = Control::Enable { ring: Ring::Access, layout: Layout::VmEvent7, slots: 16 };
    assert_eq!(bench.refused(control), Errno::EINVAL);
    for ring in Ring::ALL {
        bench.enable(ring, 0);
        assert_eq!(bench.refused(enable(ring)), Errno::EBUSY);
    }
}

#[test]
fn operations_on_a_ring_that_does_not_exist_have_xens_numbers() {
    let mut bench = Bench::new(1);
    for ring in Ring::ALL {
        assert_eq!(bench.refused(disable(ring)), Errno::EINVAL);
        assert_eq!(bench.refused(Control::Disable { ring, drain: true }), Errno::EINVAL);
        assert_eq!(bench.refused(Control::Resume { ring }), Errno::ENODEV);
    }
    for gfn in [3, 1 << 40] {
        let gfn = Gfn(gfn);
        assert_eq!(bench.refused(Control::Nominate { gfn }), Errno::ENODEV);
        assert_eq!(bench.refused(Control::Evict { gfn }), Errno::ENODEV);
        assert_eq!(bench.refused(Control::Prep { gfn, buffer: true }), Errno::ENODEV);
    }
}

#[test]
fn disable_with_sleepers_is_busy_and_the_ring_works_on() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.refused(disable(Ring::Access)), Errno::EBUSY);
    bench.watch(3, AccessType::Rwx);
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.access(1, 3, R), Outcome::Proceed);
    bench.must(disable(Ring::Access));
    assert!(bench.has(&Effect::Closed(Ring::Access)));
}

#[test]
fn a_draining_disable_ends_when_the_answers_are_in_and_wakes_the_sleepers() {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    bench.must(Control::Disable { ring: Ring::Access, drain: true });
    assert!(!bench.has(&Effect::Closed(Ring::Access)), "an answer is due");
    assert_eq!(bench.access(2, 3, R), consumer_due(Ring::Access), "no new claims");
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.effects.list.last(), Some(&Effect::Closed(Ring::Access)));
    assert_eq!(bench.woken(), [0, 1, 2]);
    assert_eq!(bench.access(1, 3, R), consumer_due(Ring::Access));
    bench.enable(Ring::Access, 1);
    assert_eq!(bench.woken(), [1]);
}

#[test]
fn a_draining_disable_of_an_idle_ring_ends_at_once() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Disable { ring: Ring::Paging, drain: true });
    assert!(bench.has(&Effect::Closed(Ring::Paging)));
    bench.enable(Ring::Paging, 0);
}

#[test]
fn a_draining_paging_ring_still_loads_but_evicts_no_more() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
    bench.must(Control::Disable { ring: Ring::Paging, drain: true });
    assert_eq!(bench.refused(Control::Nominate { gfn: Gfn(5) }), Errno::EBUSY);
    assert_eq!(bench.prep(4), Outcome::Proceed);
    let request = bench.request(Ring::Paging);
    bench.answer(Ring::Paging, &request);
    assert!(bench.has(&Effect::Map(Gfn(4))) && bench.has(&Effect::Closed(Ring::Paging)));
    assert_eq!(bench.access(0, 4, R), Outcome::Proceed);
}

#[test]
fn disable_wakes_who_was_not_answered_and_gives_nominated_frames_back() {
    let mut bench = Bench::new(3);
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    bench.must(Control::Nominate { gfn: Gfn(5) });
    bench.must(Control::Nominate { gfn: Gfn(6) });
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(1, 5, R), answer_due(Ring::Paging));
    bench.must(disable(Ring::Paging));
    assert_eq!(bench.woken(), [0, 1]);
    assert!(bench.has(&Effect::Map(Gfn(5))) && bench.has(&Effect::Map(Gfn(6))));
    assert_eq!(bench.access(1, 5, W), Outcome::Proceed);
    assert_eq!(bench.access(2, 6, W), Outcome::Proceed);
    assert_eq!(bench.access(0, 4, R), consumer_due(Ring::Paging));
    bench.enable(Ring::Paging, 0);
    assert_eq!(bench.access(0, 4, R), answer_due(Ring::Paging));
    assert_eq!(bench.request(Ring::Paging).event.p2mt(), P2mType::RamPaged);
}

#[test]
fn a_thousand_cycles_leave_nothing_behind() {
    let mut bench = Bench::new(2);
    bench.watch(3, AccessType::N);
    let before = bench.domain.info();
    for _ in 0..1000 {
        bench.enable(Ring::Access, 1);
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
        bench.must(disable(Ring::Access));
        assert_eq!(bench.woken(), [0]);
        assert_eq!(bench.domain.free_slots(Ring::Access), 0);
    }
    assert_eq!(bench.domain.info(), before);
}

#[test]
fn a_slot_that_was_promised_on_an_ended_ring_is_void() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 1);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [1, 0]);
    bench.must(disable(Ring::Access));
    bench.enable(Ring::Access, 1);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access), "the old promise holds nothing of the new ring");
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
}

#[test]
fn destroy_wakes_everybody_and_closes_every_ring() {
    let mut bench = Bench::new(5);
    bench.enable(Ring::Access, 1);
    bench.enable(Ring::Paging, 0);
    bench.watch(3, AccessType::N);
    bench.page_out(4);
    let _ = bench.step(&Input::Unpopulated { first: Gfn(9), count: 1 });
    bench.must(Control::SetBudget { frames: 0 });
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.access(2, 4, R), answer_due(Ring::Paging));
    assert_eq!(bench.access(3, 9, R), Outcome::Wait(WaitReason::Frame));
    assert_eq!(bench.step(&Input::Destroy), Outcome::Proceed);
    let mut woken = bench.woken();
    woken.sort_unstable();
    assert_eq!(woken, [0, 1, 2, 3]);
    assert!(bench.has(&Effect::Closed(Ring::Access)) && bench.has(&Effect::Closed(Ring::Paging)));
    assert!((0..5).all(|vcpu| bench.waiting(vcpu).is_none()));
    assert_eq!(bench.access(0, 3, R), Outcome::Crashed);
    assert_eq!(bench.foreign(3, R), Outcome::Crashed);
}

#[test]
fn a_dying_domain_ignores_enable_and_disable_and_refuses_paging() {
    let mut bench = Bench::new(1);
    let _ = bench.step(&Input::Destroy);
    let before = bench.domain.state();
    for ring in Ring::ALL {
        assert_eq!(bench.control(enable(ring)), Outcome::Proceed);
        assert_eq!(bench.control(disable(ring)), Outcome::Proceed);
    }
    assert_eq!(bench.step(&Input::Destroy), Outcome::Proceed);
    assert_eq!(bench.domain.state(), before);
    assert_eq!(bench.refused(Control::Nominate { gfn: Gfn(3) }), Errno::EINVAL);
}

#[test]
fn a_lost_consumers_requests_wait_for_its_successor() {
    let mut bench = Bench::new(4);
    bench.enable(Ring::Access, 2);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, W), answer_due(Ring::Access));
    assert_eq!(bench.access(2, 3, R), slot_due(Ring::Access));
    let first = bench.requests(Ring::Access)[0];
    bench.post(Ring::Access, &first.answer());
    // It answered the first without signalling, and died.
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    assert_eq!(bench.woken(), [0], "what it answered counts, and vCPU 2 keeps its place");
    assert_eq!(bench.waiting(1), Some(WaitReason::Answer(Ring::Access)));
    assert_eq!(bench.access(2, 3, R), consumer_due(Ring::Access));
    bench.enable(Ring::Access, 2);
    let again = bench.requests(Ring::Access);
    assert_eq!(again.iter().map(|request| request.vcpu).collect::<Vec<_>>(), [VcpuId(1)]);
    assert_eq!(again[0].event.rights(), W);
    assert_eq!(bench.woken(), [2]);
    bench.answer(Ring::Access, &again[0]);
    assert!(bench.woken().contains(&1));
}

#[test]
fn a_successor_with_too_few_slots_is_refused() {
    let mut bench = Bench::new(4);
    bench.enable(Ring::Access, 4);
    bench.watch(3, AccessType::N);
    for vcpu in 0..3 {
        assert_eq!(bench.access(vcpu, 3, R), answer_due(Ring::Access));
    }
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    let control = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 2 };
    assert_eq!(bench.refused(control), Errno::EINVAL);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 8), Outcome::Proceed);
    assert_eq!(bench.requests(Ring::Access).len(), 3);
}

#[test]
fn a_lost_consumer_crashes_the_domain_where_that_is_set() {
    let mut bench = Bench::new(2);
    bench.must(Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Crash });
    bench.enable(Ring::Access, 0);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    assert!(bench.effects.list.iter().any(|effect| matches!(effect, Effect::Crash(_))));
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 3, R), Outcome::Crashed);
    assert_eq!(bench.access(1, 9, R), Outcome::Crashed);
}

#[test]
fn a_lost_listener_relaxes_pages_where_that_is_set_and_leaves_nobody_paused() {
    let mut bench = Bench::new(3);
    bench.must(Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Relax });
    bench.enable(Ring::Access, 2);
    bench.watch(3, AccessType::N);
    bench.watch(4, AccessType::N2rwx);
    assert_eq!(bench.access(1, 4, R), Outcome::Proceed);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(2, 3, R), slot_due(Ring::Access));
    let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
    assert_eq!(bench.woken(), [0, 2]);
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    assert_eq!(bench.access(2, 3, R), Outcome::Proceed);
    bench.enable(Ring::Access, 2);
    let kept = bench.request(Ring::Access);
    assert_eq!((kept.frame(), kept.flags), (Some(Gfn(4)), Flags::NONE), "an event that stopped nobody is not lost");
}

#[test]
fn a_changed_setting_reaches_those_who_already_wait() {
    let mut bench = Bench::new(2);
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(0, 3, R), consumer_due(Ring::Access));
    bench.must(Control::SetAccessRequired { required: false });
    assert_eq!(bench.woken(), [0]);
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    bench.must(Control::SetAccessRequired { required: true });
    assert_eq!(bench.access(1, 3, R), consumer_due(Ring::Access));
    bench.must(Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Crash });
    assert_eq!(bench.access(1, 3, R), Outcome::Crashed);
}

#[test]
fn only_the_access_ring_has_pages_to_relax() {
    let mut bench = Bench::new(1);
    for ring in [Ring::Paging, Ring::Sharing] {
        assert_eq!(bench.refused(Control::SetNoConsumer { ring, policy: NoConsumer::Relax }), Errno::EINVAL);
    }
}

#[test]
fn a_domain_with_impossible_facts_is_refused_with_a_sentence() {
    let ram = |ram: &[(u64, u64)]| DomainConfig {
        ram: ram.iter().map(|(first, count)| (Gfn(*first), *count)).collect(),
        ..config(1)
    };
    let bad = [
        DomainConfig { vcpus: 0, ..config(1) },
        DomainConfig { vcpus: 4097, ..config(1) },
        ram(&[(0, 0)]),
        ram(&[(8, 8), (0, 8)]),
        ram(&[(0, 8), (7, 8)]),
        ram(&[(1, u64::MAX)]),
        ram(&[(1 << 26, 1)]),
    ];
    for config in bad {
        let sentence = mem_event::Domain::new(config.clone()).err();
        assert!(sentence.is_some_and(|sentence| !sentence.is_empty()), "{config:?}");
    }
}

/// Registers that tell one vCPU's request from another's.
fn registers(rip: u64) -> Registers {
    Registers { rip, control: [1, 2, rip, 4], ..Registers::default() }
}

#[test]
fn a_successor_gets_each_request_with_its_registers() {
    let mut bench = Bench::new(4);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    bench.watch(3, AccessType::N);
    for (vcpu, rip) in [(0, 0x100), (1, 0x200), (2, 0x300)] {
        let access = Input::Access { vcpu: VcpuId(vcpu), access: touch(3, R) };
        let with = With { registers: Some(&registers(rip)), ..With::NOTHING };
        assert_eq!(bench.step_with(&access, with), answer_due(Ring::Access));
    }
    assert_eq!(bench.access(3, 3, R), answer_due(Ring::Access));
    let requests = bench.requests(Ring::Access);
    bench.answer(Ring::Access, &requests[1]);
    let found = |bench: &mut Bench| {
        let back = bench.back(Ring::Access);
        let mut found = Vec::new();
        while let Some(request) = back.take().unwrap() {
            found.push((request.vcpu.0, back.registers().map(|it| (it.rip, it.control[2]))));
        }
        found
    };
    for _ in 0..2 {
        let _ = bench.step(&Input::ConsumerLost { ring: Ring::Access });
        assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
        let left = [(0, Some((0x100, 0x100))), (2, Some((0x300, 0x300))), (3, Some((0, 0)))];
        assert_eq!(found(&mut bench), left);
    }
}

/// The late answer let the vCPU go on that stood at an event of the machine after the reset.
#[test]
fn a_reset_ends_every_wait_and_answers_to_what_was_before_let_nobody_go() {
    let mut bench = Bench::new(4);
    bench.enable(Ring::Access, 1);
    bench.enable(Ring::Paging, 4);
    bench.watch(3, AccessType::N);
    bench.page_out(5);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(1, 3, R), slot_due(Ring::Access));
    assert_eq!(bench.access(2, 5, R), answer_due(Ring::Paging));
    assert!(bench.domain.has_unfinished());
    assert_eq!(bench.step(&Input::Reset), Outcome::Proceed);
    assert_eq!(bench.woken(), [0, 1, 2]);
    assert!(!bench.domain.has_unfinished());
    assert_eq!((0..4).map(|vcpu| bench.waiting(vcpu)).collect::<Vec<_>>(), [None; 4]);
    let (late, page) = (bench.request(Ring::Access), bench.request(Ring::Paging));
    // The same vCPU comes to the same access, and has to queue for the slot that the past one still has.
    assert_eq!(bench.access(0, 3, R), slot_due(Ring::Access));
    bench.answer(Ring::Access, &late);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    // What the pager was asked for comes all the same, and wakes nobody.
    assert_eq!(bench.access(2, 3, R), slot_due(Ring::Access));
    bench.must(Control::Prep { gfn: Gfn(5), buffer: true });
    bench.answer(Ring::Paging, &page);
    assert_eq!(bench.woken(), []);
    assert_eq!(bench.access(1, 5, R), Outcome::Proceed);
    let current = bench.request(Ring::Access);
    bench.answer(Ring::Access, &current);
    assert_eq!(bench.woken(), [2, 0], "the slot's, and the one that was answered");
}
