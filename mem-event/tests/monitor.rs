//! CPU events: control registers, model-specific registers, breakpoints, single steps.

mod common;

use common::{Bench, R, answer_due, consumer_due, slot_due};
use mem_event::{
    AccessType, Control, Cpu, CpuEvent, CpuEventKind, Effect, Errno, Event, Flags, Gfn, Gla, Input, Layout,
    MonitorMode, NoConsumer, Outcome, Request, Ring, Trap, TrapKind, VcpuId,
};

fn event(kind: CpuEventKind, value: u64, old: u64) -> CpuEvent {
    CpuEvent { kind, value, old, number: 0xc000_0080, rip: Gla(0xffff_8000_0000_1abc), gfn: Gfn(5) }
}

fn monitored(kind: CpuEventKind, mode: MonitorMode, on_change_only: bool) -> Bench {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 0);
    bench.must(Control::Monitor { kind, mode, on_change_only });
    bench
}

fn raise(bench: &mut Bench, event: CpuEvent) -> Outcome {
    bench.step(&Input::CpuEvent { vcpu: VcpuId(0), event })
}

#[test]
fn a_sync_cr3_write_is_one_event_and_the_vcpu_stops_until_its_answer() {
    let mut bench = monitored(CpuEventKind::Cr3, MonitorMode::Sync, false);
    for _ in 0..3 {
        // The same change again and again is an event each time.
        let write = event(CpuEventKind::Cr3, 0x5000, 0x6000);
        assert_eq!(raise(&mut bench, write), answer_due(Ring::Access));
        assert_eq!(raise(&mut bench, write), answer_due(Ring::Access));
        let request = bench.request(Ring::Access);
        assert_eq!(request.event, Event::Cpu(Cpu::Cr3 { new: 0x5000, old: 0x6000 }));
        assert_eq!(request.flags, Flags::VCPU_PAUSED);
        bench.answer(Ring::Access, &request);
        assert_eq!(bench.woken(), [0]);
        assert_eq!(raise(&mut bench, write), Outcome::Proceed);
        assert!(bench.requests(Ring::Access).is_empty());
    }
}

#[test]
fn an_async_event_lets_the_vcpu_run() {
    let mut bench = monitored(CpuEventKind::Cr0, MonitorMode::Async, false);
    assert_eq!(raise(&mut bench, event(CpuEventKind::Cr0, 1, 0)), Outcome::Proceed);
    assert_eq!(bench.request(Ring::Access).flags, Flags::NONE);
    assert_eq!(bench.domain.pause_count(VcpuId(0)), 0);
}

#[test]
fn a_write_that_changes_nothing_is_told_of_model_specific_registers_alone() {
    for on_change_only in [false, true] {
        for kind in [CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4] {
            let mut bench = monitored(kind, MonitorMode::Async, on_change_only);
            assert_eq!(raise(&mut bench, event(kind, 7, 7)), Outcome::Proceed);
            assert!(bench.requests(Ring::Access).is_empty(), "{kind}");
            assert_eq!(raise(&mut bench, event(kind, 8, 7)), Outcome::Proceed);
            assert_eq!(bench.request(Ring::Access).event.subject(), 8);
        }
    }
    let mut bench = monitored(CpuEventKind::Msr, MonitorMode::Async, false);
    assert_eq!(raise(&mut bench, event(CpuEventKind::Msr, 7, 7)), Outcome::Proceed);
    let request = bench.request(Ring::Access);
    assert_eq!(request.event, Event::Cpu(Cpu::Msr { msr: 0xc000_0080, new: 7, old: 0 }));
}

/// `hvm_monitor_msr` (Xen 4.17).
#[test]
fn of_a_model_specific_register_changes_alone_are_told_where_that_is_asked_for() {
    for mode in [MonitorMode::Async, MonitorMode::Sync] {
        let mut bench = monitored(CpuEventKind::Msr, mode, true);
        assert_eq!(raise(&mut bench, event(CpuEventKind::Msr, 7, 7)), Outcome::Proceed);
        assert!(bench.requests(Ring::Access).is_empty(), "{mode}");
        let due = if mode == MonitorMode::Sync { answer_due(Ring::Access) } else { Outcome::Proceed };
        assert_eq!(raise(&mut bench, event(CpuEventKind::Msr, 8, 7)), due);
        assert_eq!(bench.requests(Ring::Access).len(), 1, "{mode}");
    }
}

#[test]
fn setting_what_is_set_and_clearing_what_is_not_is_refused_with_eexist() {
    for kind in CpuEventKind::ALL {
        let mut bench = Bench::new(1);
        let set = |mode, on_change_only| Control::Monitor { kind, mode, on_change_only };
        assert_eq!(bench.refused(set(MonitorMode::Disabled, false)), Errno::EEXIST, "{kind}");
        for mode in [MonitorMode::Sync, MonitorMode::Async] {
            bench.must(set(mode, false));
            assert_eq!(bench.refused(set(mode, false)), Errno::EEXIST, "{kind}");
            assert_eq!(bench.domain.monitored(kind), mode);
        }
        bench.must(set(MonitorMode::Disabled, false));
        assert_eq!(bench.refused(set(MonitorMode::Disabled, false)), Errno::EEXIST, "{kind}");
    }
    let mut bench = monitored(CpuEventKind::Cr3, MonitorMode::Sync, true);
    let off =
        |on_change_only| Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Disabled, on_change_only };
    bench.must(off(true));
    assert_eq!(bench.refused(off(false)), Errno::EEXIST, "what is off is off");
}

#[test]
fn nothing_is_reported_that_is_disabled() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 0);
    for kind in CpuEventKind::ALL {
        assert_eq!(raise(&mut bench, event(kind, 1, 0)), Outcome::Proceed);
    }
    assert!(bench.requests(Ring::Access).is_empty());
}

#[test]
fn on_change_only_means_nothing_where_no_register_is_written() {
    let mut bench = Bench::new(1);
    let [cr0, cr3, cr4] = [CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4];
    let writes = [cr0, cr3, cr4, CpuEventKind::Xcr0, CpuEventKind::Msr];
    for kind in CpuEventKind::ALL.into_iter().filter(|kind| !writes.contains(kind)) {
        let control = Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: true };
        assert_eq!(bench.refused(control), Errno::EINVAL);
    }
}

#[test]
fn a_breakpoint_that_nobody_listens_to_is_the_guests() {
    for policy in [NoConsumer::Wait, NoConsumer::Crash, NoConsumer::Relax] {
        let mut bench = Bench::new(1);
        bench.must(Control::SetNoConsumer { ring: Ring::Access, policy });
        bench.must(Control::Monitor { kind: CpuEventKind::Int3, mode: MonitorMode::Sync, on_change_only: false });
        assert_eq!(raise(&mut bench, event(CpuEventKind::Int3, 0, 0)), Outcome::Proceed);
    }
}

#[test]
fn a_breakpoint_that_is_answered_is_the_guests_once() {
    let mut bench = monitored(CpuEventKind::Int3, MonitorMode::Sync, false);
    let breakpoint = event(CpuEventKind::Int3, 0, 0);
    assert_eq!(raise(&mut bench, breakpoint), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    assert_eq!(request.event, Event::Cpu(Cpu::Int3 { rip: breakpoint.rip, gfn: Gfn(5) }));
    bench.answer(Ring::Access, &request);
    assert_eq!(raise(&mut bench, breakpoint), Outcome::Proceed);
    assert_eq!(raise(&mut bench, breakpoint), answer_due(Ring::Access), "the next time is another event");
}

fn stopped_at_a_breakpoint(layout: Layout) -> (Bench, CpuEvent, Request) {
    let mut bench = Bench::new(2);
    assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
    bench.must(Control::Monitor { kind: CpuEventKind::Int3, mode: MonitorMode::Sync, on_change_only: false });
    let breakpoint = event(CpuEventKind::Int3, 0, 0);
    assert_eq!(raise(&mut bench, breakpoint), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    (bench, breakpoint, request)
}

#[test]
fn a_breakpoint_of_vm_event_is_fetched_again_when_it_is_answered_and_the_guests_when_it_was_injected() {
    let (mut bench, breakpoint, request) = stopped_at_a_breakpoint(Layout::VmEvent7);
    bench.answer(Ring::Access, &request);
    assert_eq!(raise(&mut bench, breakpoint), Outcome::Retry(Errno::EAGAIN));
    assert_eq!(raise(&mut bench, breakpoint), answer_due(Ring::Access), "it is still there");
    let request = bench.request(Ring::Access);
    bench.must(Trap::breakpoint(VcpuId(0)));
    bench.answer(Ring::Access, &request);
    assert_eq!(raise(&mut bench, breakpoint), Outcome::Proceed);
    assert_eq!(raise(&mut bench, breakpoint), answer_due(Ring::Access), "an injection is for one event");
}

#[test]
fn a_debug_exception_is_answered_as_a_breakpoint_is_and_each_by_its_own_vector() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    bench.must(Control::Monitor { kind: CpuEventKind::Debug, mode: MonitorMode::Sync, on_change_only: false });
    let trap = CpuEvent { number: 1, ..event(CpuEventKind::Debug, 0, 0) };
    for (injected, due) in [(None, Some(Errno::EAGAIN)), (Some(3), Some(Errno::EAGAIN)), (Some(1), None)] {
        assert_eq!(raise(&mut bench, trap), answer_due(Ring::Access), "{injected:?}");
        let request = bench.request(Ring::Access);
        assert_eq!(request.event, Event::Cpu(Cpu::Debug { rip: trap.rip, gfn: Gfn(5), causes: 0, length: 1 }));
        if let Some(vector) = injected {
            let Control::Inject { vcpu, kind, error, cr2, .. } = Trap::debug(VcpuId(0), 1) else { unreachable!() };
            bench.must(Control::Inject { vcpu, vector, kind, error, cr2 });
        }
        bench.answer(Ring::Access, &request);
        assert_eq!(raise(&mut bench, trap), due.map_or(Outcome::Proceed, Outcome::Retry), "{injected:?}");
    }
}

/// A vCPU stopped by a write of CR3, whose answer has these flags; and a page fault that it gets then.
fn before_a_page_fault(layout: Layout, flags: Flags) -> (Bench, CpuEvent) {
    let mut bench = Bench::new(2);
    assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
    bench.must(Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Sync, on_change_only: false });
    let write = event(CpuEventKind::Cr3, 0x1000, 0x2000);
    assert_eq!(raise(&mut bench, write), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.respond(Ring::Access, &request.answer().with(flags));
    assert_eq!(raise(&mut bench, write), Outcome::Proceed);
    let fault = CpuEvent { number: TrapKind::Exception.packed(14), ..event(CpuEventKind::Interrupt, 0xabc, 2) };
    (bench, fault)
}

#[test]
fn an_answer_asks_for_the_next_interrupt_once() {
    let (mut bench, fault) = before_a_page_fault(Layout::VmEvent7, Flags::GET_NEXT_INTERRUPT);
    assert!(bench.domain.tells_next_interrupt(VcpuId(0)) && !bench.domain.tells_next_interrupt(VcpuId(1)));
    assert_eq!(bench.step(&Input::CpuEvent { vcpu: VcpuId(1), event: fault }), Outcome::Proceed, "another vCPU's");
    assert_eq!(raise(&mut bench, fault), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    let told = Cpu::Interrupt { vector: 14, kind: TrapKind::Exception, error: 2, cr2: 0xabc };
    assert_eq!((request.event, request.flags), (Event::Cpu(told), Flags::VCPU_PAUSED));
    assert!(!bench.domain.tells_next_interrupt(VcpuId(0)), "one is told");
    // Its own answer may ask for the next, and does not tell the same twice.
    bench.respond(Ring::Access, &request.answer().with(Flags::GET_NEXT_INTERRUPT));
    assert_eq!(raise(&mut bench, fault), Outcome::Proceed);
    assert_eq!(raise(&mut bench, fault), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!((raise(&mut bench, fault), raise(&mut bench, fault)), (Outcome::Proceed, Outcome::Proceed));
}

#[test]
fn the_older_layouts_ask_for_no_interrupt_and_without_a_listener_it_is_the_guests() {
    for layout in [Layout::Flags16, Layout::Flags32] {
        let (mut bench, fault) = before_a_page_fault(layout, Flags::GET_NEXT_INTERRUPT);
        assert!(!bench.domain.tells_next_interrupt(VcpuId(0)), "{layout}");
        assert_eq!(raise(&mut bench, fault), Outcome::Proceed, "{layout}");
    }
    let (mut bench, fault) = before_a_page_fault(Layout::VmEvent7, Flags::GET_NEXT_INTERRUPT);
    assert_eq!(bench.step(&Input::ConsumerLost { ring: Ring::Access }), Outcome::Proceed);
    assert_eq!(raise(&mut bench, fault), Outcome::Proceed);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    assert_eq!(raise(&mut bench, fault), Outcome::Proceed, "it was the one before");
}

#[test]
fn an_instruction_that_comes_with_the_answer_to_a_breakpoint_is_done_in_its_place_once() {
    for (flags, due) in [
        (Flags::EMULATE.union(Flags::SET_EMUL_INSN_DATA), Outcome::Alone),
        (Flags::EMULATE, Outcome::Retry(Errno::EAGAIN)),
        (Flags::SET_EMUL_INSN_DATA, Outcome::Retry(Errno::EAGAIN)),
    ] {
        let (mut bench, breakpoint, request) = stopped_at_a_breakpoint(Layout::VmEvent7);
        bench.respond(Ring::Access, &request.answer().with(flags));
        assert_eq!(raise(&mut bench, breakpoint), due, "{flags}");
        if due == Outcome::Alone {
            assert_eq!(raise(&mut bench, breakpoint), due, "it was kept from running");
            let code = bench.domain.emulation(VcpuId(0)).unwrap().code;
            assert_eq!(code, Some([0; 16]), "no data came with the answer");
            assert_eq!(bench.step(&Input::Emulated { vcpu: VcpuId(0) }), Outcome::Proceed);
        }
        assert_eq!(raise(&mut bench, breakpoint), answer_due(Ring::Access), "{flags}: the next time is another event");
    }
}

#[test]
fn the_older_layouts_need_no_injection() {
    for (layout, injects) in [(Layout::Flags16, false), (Layout::Flags32, false), (Layout::Flags32, true)] {
        let (mut bench, breakpoint, request) = stopped_at_a_breakpoint(layout);
        if injects {
            bench.must(Trap::breakpoint(VcpuId(0)));
        }
        bench.answer(Ring::Access, &request);
        assert_eq!(raise(&mut bench, breakpoint), Outcome::Proceed);
    }
}

#[test]
fn what_is_injected_is_delivered_and_only_the_breakpoint_that_is_reported_is_the_vcpus_own_to_run() {
    let (mut bench, breakpoint, request) = stopped_at_a_breakpoint(Layout::VmEvent7);
    let inject = |vcpu, vector| {
        let (kind, error, cr2) = (TrapKind::Exception, 6, 0x1234);
        Control::Inject { vcpu: VcpuId(vcpu), vector, kind, error, cr2 }
    };
    let fault = Trap { vector: 14, kind: TrapKind::Exception, error: Some(6), cr2: 0x1234 };
    bench.must(inject(0, 14));
    assert_eq!(bench.effects.list, [Effect::Inject { vcpu: VcpuId(0), trap: fault }]);
    bench.must(inject(1, 3));
    assert_eq!(bench.effects.list, [Effect::Inject { vcpu: VcpuId(1), trap: Trap { vector: 3, ..fault } }]);
    assert_eq!(bench.refused(inject(2, 3)), Errno::ESRCH);
    assert_eq!(bench.refused(inject(0, 256)), Errno::EINVAL);
    bench.must(inject(0, 3));
    assert_eq!(bench.effects.list, [], "the vCPU runs its own");
    bench.answer(Ring::Access, &request);
    assert_eq!(raise(&mut bench, breakpoint), Outcome::Proceed);
}

#[test]
fn a_register_write_without_a_listener_does_what_the_ring_says() {
    let sync = Control::Monitor { kind: CpuEventKind::Cr4, mode: MonitorMode::Sync, on_change_only: false };
    let write = event(CpuEventKind::Cr4, 1, 0);
    let outcomes = [NoConsumer::Wait, NoConsumer::Crash, NoConsumer::Relax].map(|policy| {
        let mut bench = Bench::new(1);
        bench.must(Control::SetNoConsumer { ring: Ring::Access, policy });
        bench.must(sync.clone());
        raise(&mut bench, write)
    });
    assert_eq!(outcomes, [consumer_due(Ring::Access), Outcome::Crashed, Outcome::Proceed]);
}

#[test]
fn an_event_on_a_full_ring_waits_and_is_not_lost() {
    let mut bench = Bench::new(2);
    bench.enable(Ring::Access, 1);
    bench.must(Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Async, on_change_only: false });
    bench.watch(3, AccessType::N);
    assert_eq!(bench.access(1, 3, R), answer_due(Ring::Access));
    let write = event(CpuEventKind::Cr3, 0x7000, 0);
    assert_eq!(raise(&mut bench, write), slot_due(Ring::Access));
    let request = bench.request(Ring::Access);
    bench.answer(Ring::Access, &request);
    assert_eq!(bench.woken(), [0, 1]);
    assert_eq!(raise(&mut bench, write), Outcome::Proceed);
    assert_eq!(bench.request(Ring::Access).event.subject(), 0x7000);
}

#[test]
fn single_steps_are_reported_for_the_vcpus_that_were_told_to() {
    let mut bench = monitored(CpuEventKind::SingleStep, MonitorMode::Sync, false);
    let step = event(CpuEventKind::SingleStep, 0, 0);
    assert_eq!(raise(&mut bench, step), Outcome::Proceed);
    bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
    assert!(bench.domain.single_steps(VcpuId(0)) && !bench.domain.single_steps(VcpuId(1)));
    assert_eq!(raise(&mut bench, step), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    let mut response = request.answer();
    response.flags = response.flags.union(Flags::TOGGLE_SINGLESTEP);
    bench.respond(Ring::Access, &response);
    // The 40-byte layouts have no such flag: nothing was turned over.
    assert!(bench.domain.single_steps(VcpuId(0)));
    assert_eq!(bench.refused(Control::SingleStep { vcpu: VcpuId(2), on: true }), Errno::ESRCH);
}

#[test]
fn what_was_monitored_ends_with_the_ring_that_is_disabled() {
    for drain in [false, true] {
        let mut bench = monitored(CpuEventKind::Cr3, MonitorMode::Sync, false);
        bench.must(Control::Monitor { kind: CpuEventKind::SingleStep, mode: MonitorMode::Sync, on_change_only: false });
        bench.must(Control::SingleStep { vcpu: VcpuId(1), on: true });
        let write = event(CpuEventKind::Cr3, 0x5000, 0);
        assert_eq!(raise(&mut bench, write), answer_due(Ring::Access));
        let request = bench.request(Ring::Access);
        bench.must(Control::Disable { ring: Ring::Access, drain });
        for kind in CpuEventKind::ALL {
            assert_eq!(bench.domain.monitored(kind), MonitorMode::Disabled, "{kind}, before the last answer");
        }
        assert!(!bench.domain.single_steps(VcpuId(1)));
        if drain {
            bench.answer(Ring::Access, &request);
        }
        assert_eq!(bench.woken(), [0]);
        assert_eq!(raise(&mut bench, write), Outcome::Proceed);
        assert_eq!(
            raise(&mut bench, event(CpuEventKind::Cr3, 0x6000, 0x5000)),
            Outcome::Proceed,
            "nobody asked for it"
        );
        // A new consumer begins with nothing: not even a vCPU's steps, when it monitors them.
        bench.enable(Ring::Access, 0);
        assert_eq!(raise(&mut bench, write), Outcome::Proceed);
        let steps = CpuEventKind::SingleStep;
        bench.must(Control::Monitor { kind: steps, mode: MonitorMode::Sync, on_change_only: false });
        assert!(!bench.domain.single_steps(VcpuId(1)));
        assert!(bench.requests(Ring::Access).is_empty());
    }
}

#[test]
fn a_disable_that_is_refused_and_one_of_another_ring_change_no_monitor() {
    let mut bench = monitored(CpuEventKind::Cr3, MonitorMode::Async, false);
    bench.must(Control::Disable { ring: Ring::Access, drain: false });
    bench.must(Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Async, on_change_only: false });
    assert_eq!(bench.refused(Control::Disable { ring: Ring::Access, drain: false }), Errno::EINVAL);
    assert_eq!(bench.domain.monitored(CpuEventKind::Cr3), MonitorMode::Async);
    bench.enable(Ring::Access, 1);
    bench.enable(Ring::Paging, 0);
    bench.must(Control::Disable { ring: Ring::Paging, drain: false });
    assert_eq!(raise(&mut bench, event(CpuEventKind::Cr3, 1, 0)), Outcome::Proceed);
    assert_eq!(raise(&mut bench, event(CpuEventKind::Cr3, 2, 1)), slot_due(Ring::Access));
    assert_eq!(bench.refused(Control::Disable { ring: Ring::Access, drain: false }), Errno::EBUSY);
    assert_eq!(bench.domain.monitored(CpuEventKind::Cr3), MonitorMode::Async);
}

#[test]
fn a_consumer_that_is_lost_leaves_its_monitors_and_its_event_to_its_successor() {
    let mut bench = monitored(CpuEventKind::Cr3, MonitorMode::Sync, false);
    let write = event(CpuEventKind::Cr3, 0x5000, 0);
    assert_eq!(raise(&mut bench, write), answer_due(Ring::Access));
    assert_eq!(bench.step(&Input::ConsumerLost { ring: Ring::Access }), Outcome::Proceed);
    assert_eq!(raise(&mut bench, write), answer_due(Ring::Access));
    bench.enable(Ring::Access, 0);
    let request = bench.request(Ring::Access);
    assert_eq!(request.event.subject(), 0x5000);
    bench.answer(Ring::Access, &request);
    assert_eq!(raise(&mut bench, write), Outcome::Proceed);
    assert_eq!(bench.domain.monitored(CpuEventKind::Cr3), MonitorMode::Sync);
}

#[test]
fn a_write_that_changes_only_masked_bits_is_no_event() {
    for kind in [CpuEventKind::Cr0, CpuEventKind::Cr3, CpuEventKind::Cr4, CpuEventKind::Xcr0] {
        let mut bench = monitored(kind, MonitorMode::Async, false);
        bench.must(Control::MonitorMask { kind, ignored: 0x84 });
        for (new, old, is_told) in [(0x84, 0, false), (0x80, 0x4, false), (0x85, 0, true), (1, 0, true), (7, 7, false)]
        {
            assert_eq!(raise(&mut bench, event(kind, new, old)), Outcome::Proceed);
            assert_eq!(bench.requests(Ring::Access).len(), usize::from(is_told), "{kind} {new:#x} {old:#x}");
        }
        bench.must(Control::MonitorMask { kind, ignored: 0 });
        assert_eq!(raise(&mut bench, event(kind, 4, 0)), Outcome::Proceed);
        assert_eq!(bench.requests(Ring::Access).len(), 1, "{kind}");
        bench.must(Control::MonitorMask { kind, ignored: u64::MAX });
        bench.must(Control::Disable { ring: Ring::Access, drain: false });
        assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
        bench.must(Control::Monitor { kind, mode: MonitorMode::Async, on_change_only: false });
        assert_eq!(raise(&mut bench, event(kind, 4, 0)), Outcome::Proceed);
        assert_eq!(bench.requests(Ring::Access).len(), 1, "the mask ends with the ring, as what was monitored does");
    }
    let mut bench = Bench::new(1);
    for kind in [CpuEventKind::Msr, CpuEventKind::Int3, CpuEventKind::Cpuid] {
        assert_eq!(bench.refused(Control::MonitorMask { kind, ignored: 1 }), Errno::EINVAL);
    }
}

#[test]
fn single_model_specific_registers_are_told_each_as_it_was_asked_for() {
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    let mut bench = Bench::new(1);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    let on = |msr, mode, on_change_only| Control::MonitorMsr { msr, mode, on_change_only };
    bench.must(on(STAR, MonitorMode::Async, true));
    bench.must(on(LSTAR, MonitorMode::Async, false));
    assert_eq!(bench.refused(on(LSTAR, MonitorMode::Async, false)), Errno::EEXIST);
    assert_eq!(bench.domain.monitored(CpuEventKind::Msr), MonitorMode::Async);
    let tells = |bench: &mut Bench, number, new, old| {
        let event = CpuEvent { number, ..event(CpuEventKind::Msr, new, old) };
        assert_eq!(raise(bench, event), Outcome::Proceed);
        bench.requests(Ring::Access).len()
    };
    assert_eq!([(7, 7), (8, 7)].map(|(new, old)| tells(&mut bench, STAR, new, old)), [0, 1]);
    assert_eq!([(7, 7), (8, 7)].map(|(new, old)| tells(&mut bench, LSTAR, new, old)), [1, 1]);
    assert_eq!(tells(&mut bench, 0x174, 8, 7), 0);
    bench.must(on(STAR, MonitorMode::Disabled, false));
    assert_eq!([STAR, LSTAR].map(|msr| tells(&mut bench, msr, 8, 7)), [0, 1]);
    // All of them, and then none, single ones neither.
    bench.must(Control::Monitor { kind: CpuEventKind::Msr, mode: MonitorMode::Async, on_change_only: false });
    assert_eq!(tells(&mut bench, 0x174, 8, 7), 1);
    bench.must(Control::Monitor { kind: CpuEventKind::Msr, mode: MonitorMode::Disabled, on_change_only: false });
    assert_eq!([STAR, LSTAR, 0x174].map(|msr| tells(&mut bench, msr, 8, 7)), [0, 0, 0]);
    assert_eq!(bench.domain.monitored(CpuEventKind::Msr), MonitorMode::Disabled);
    assert_eq!(bench.refused(on(LSTAR, MonitorMode::Disabled, false)), Errno::EEXIST);
}
