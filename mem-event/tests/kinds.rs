//! Every kind of event and every control operation through all that takes it: a kind that somebody adds fails here first.

mod common;

use common::{Bench, answer_due, touch};
use mem_event::message::{Call, VcpuState};
use mem_event::{
    AccessType, Control, CpuEvent, CpuEventKind, Errno, Flags, Gfn, Gla, Input, Layout, MonitorMode, NoConsumer,
    Outcome, P2mType, Reason, Rights, Ring, Trap, TrapKind, VcpuId,
};
use std::collections::BTreeSet;

fn event(kind: CpuEventKind) -> Input {
    let (value, old, msr) = (0x1000, 0x2000, 0xc000_0080);
    let event = CpuEvent { kind, value, old, number: msr, rip: Gla(0x40_1234), gfn: Gfn(4) };
    Input::CpuEvent { vcpu: VcpuId(0), event }
}

fn monitored(kind: CpuEventKind, layout: Layout, mode: MonitorMode) -> Bench {
    let mut bench = Bench::new(1);
    assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
    bench.must(Control::Monitor { kind, mode, on_change_only: false });
    bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
    bench
}

#[test]
fn every_cpu_event_is_read_in_every_layout_as_what_it_was_put_as() {
    for kind in CpuEventKind::ALL {
        for layout in Layout::ALL {
            let mut bench = monitored(kind, layout, MonitorMode::Sync);
            assert_eq!(bench.step(&event(kind)), answer_due(Ring::Access), "{kind}");
            let [put] = bench.put().try_into().unwrap();
            let got = bench.request(Ring::Access);
            assert_eq!((got.event.reason(), got.flags), (Reason::Cpu(kind), Flags::VCPU_PAUSED), "{kind} in {layout}");
            assert_eq!((got.event.subject(), got.vcpu), (put.event.subject(), put.vcpu));
            bench.answer(Ring::Access, &got);
            // A breakpoint of vm_event is the guest's only where it was injected.
            let is_fetched_again = kind.trap().is_some() && layout == Layout::VmEvent7;
            let due = if is_fetched_again { Outcome::Retry(Errno::EAGAIN) } else { Outcome::Proceed };
            assert_eq!((bench.woken(), bench.step(&event(kind))), (vec![0], due), "{kind} in {layout}");
        }
    }
}

#[test]
fn every_cpu_event_runs_on_where_it_is_asynchronous() {
    for kind in CpuEventKind::ALL {
        let mut bench = monitored(kind, Layout::Flags32, MonitorMode::Async);
        assert_eq!(bench.step(&event(kind)), Outcome::Proceed);
        assert_eq!(bench.request(Ring::Access).flags, Flags::NONE, "{kind}");
    }
}

#[test]
fn every_cpu_event_is_told_a_successor_and_comes_out_of_a_state_unchanged() {
    for kind in CpuEventKind::ALL {
        let mut bench = monitored(kind, Layout::VmEvent7, MonitorMode::Sync);
        assert_eq!(bench.step(&event(kind)), answer_due(Ring::Access));
        let first = bench.request(Ring::Access);
        let put_away = bench.domain.checkpoint();
        let restored = mem_event::Domain::restore(common::config(1), put_away).unwrap();
        assert_eq!(restored.ring(Ring::Access).outstanding, [first], "{kind}");
        assert_eq!(bench.step(&Input::ConsumerLost { ring: Ring::Access }), Outcome::Proceed);
        assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
        assert_eq!(bench.request(Ring::Access), first, "{kind}");
    }
}

#[test]
fn on_change_only_is_for_the_kinds_with_an_old_value() {
    for kind in CpuEventKind::ALL {
        let mut bench = Bench::new(1);
        let outcome = bench.control(Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: true });
        let is_refused = matches!(outcome, Outcome::Refused(Errno::EINVAL, _));
        let takes_it = kind.has_old_value() || kind == CpuEventKind::Msr;
        assert_eq!(is_refused, !takes_it, "{kind}: Xen ignores it for MSRs");
    }
}

#[test]
fn every_reason_is_read_in_every_layout_as_what_it_was_put_as() {
    for layout in Layout::ALL {
        let mut seen = BTreeSet::new();
        for kind in CpuEventKind::ALL {
            let mut bench = monitored(kind, layout, MonitorMode::Async);
            let _ = bench.step(&event(kind));
            seen.insert(bench.request(Ring::Access).event.reason().name());
        }
        let mut bench = Bench::new(3);
        for ring in Ring::ALL {
            assert_eq!(bench.try_enable(ring, layout, 0), Outcome::Proceed);
        }
        bench.watch(1, AccessType::N);
        bench.must(Control::Nominate { gfn: Gfn(2) });
        assert_eq!(bench.step(&Input::Unpopulated { first: Gfn(3), count: 1 }), Outcome::Proceed);
        bench.must(Control::SetBudget { frames: 0 });
        for (vcpu, gfn, ring) in [(0, 1, Ring::Access), (1, 2, Ring::Paging), (2, 3, Ring::Sharing)] {
            let access = touch(gfn, Rights::R);
            assert_eq!(bench.step(&Input::Access { vcpu: VcpuId(vcpu), access }), answer_due(ring));
            seen.insert(bench.request(ring).event.reason().name());
        }
        assert_eq!(seen, Reason::ALL.map(Reason::name).into(), "{layout}");
    }
}

#[test]
fn every_operation_crosses_the_socket_under_its_own_number_and_name() {
    let mut names = BTreeSet::new();
    for number in Control::NUMBERS {
        let plain = Call::Info.encode(1);
        let packet = |argument: u64| {
            let mut packet = plain.clone();
            packet[6..8].copy_from_slice(&number.to_le_bytes());
            packet[16..56].as_chunks_mut::<8>().0.iter_mut().for_each(|bytes| *bytes = argument.to_le_bytes());
            packet
        };
        // 1 is a value of every argument but of a kind of trap, which is the third.
        let mut whole = packet(1);
        if number == Trap::breakpoint(VcpuId(0)).number() {
            whole[32..40].copy_from_slice(&(TrapKind::Nmi as u64).to_le_bytes());
        }
        let (_, operation, call) = Call::decode(&whole).unwrap();
        let Call::Control(control) = call else { panic!("{call:?} is no operation") };
        assert_eq!((operation, control.number()), (number, number));
        assert_eq!(
            Call::decode(&Call::Control(control.clone()).encode(1)),
            Ok((1, number, Call::Control(control.clone())))
        );
        assert!(control.to_string().starts_with(control.name()) && names.insert(control.name()), "{control}");
        assert_eq!(Input::Control(control.clone()).kind(), control.name());
        // The engine takes it, whatever it says to it.
        let _ = Bench::new(2).control(control);
    }
    assert!(Control::NUMBERS.is_sorted_by(|one, next| one < next));
}

#[test]
fn every_row_of_a_table_is_found_by_its_number_and_by_its_name() {
    macro_rules! found {
        ($($type:ident)+) => {
            $(for row in $type::ALL {
                assert_eq!($type::from_number(row as u8), Some(row), "{row}");
                assert_eq!($type::from_name(row.name()), Some(row), "{row}");
                assert_eq!(row.to_string(), row.name());
            })+
        };
    }
    found! { Ring Layout NoConsumer CpuEventKind MonitorMode AccessType P2mType VcpuState }
}

#[test]
fn frames_types_have_xens_names() {
    assert_eq!(
        [P2mType::RamRw, P2mType::PopulateOnDemand].map(P2mType::name),
        ["p2m_ram_rw", "p2m_populate_on_demand"]
    );
}

#[test]
fn every_flag_is_shown_by_its_name() {
    for (flag, name) in Flags::NAMES {
        assert_eq!(flag.to_string(), name);
    }
}
