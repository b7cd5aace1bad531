//! The words that all parts speak: numbers, rights, flags, control messages, and the sentences that people read.

mod common;

use common::{Bench, FRAMES, R, answer_due, config};
use mem_event::message::{Call, Info, Malformed, Notice, Reply};
use mem_event::{
    AccessType, Control, CpuEventKind, DomainConfig, Errno, Flags, Gfn, Gla, Gpa, Input, Layout, MonitorMode,
    NoConsumer, Outcome, Rights, Ring, RingPage, TrapKind, VcpuId, wire,
};

fn controls() -> Vec<Control> {
    let (gfn, ring) = (Gfn(0x1234_5678_9abc), Ring::Sharing);
    let mut all = vec![
        Control::Resume { ring },
        Control::GetAccess { gfn },
        Control::Nominate { gfn },
        Control::Evict { gfn },
        Control::Drop { gfn },
        Control::Pin { gfn },
        Control::Unpin { gfn },
        Control::NominateShare { gfn },
        Control::SetBudget { frames: u64::MAX },
        Control::Share { source: gfn, source_handle: 7, client: Gfn(9), client_handle: 8 },
    ];
    for layout in [Layout::Flags16, Layout::Flags32, Layout::VmEvent7] {
        all.push(Control::Enable { ring, layout, slots: 4 });
    }
    for policy in [NoConsumer::Wait, NoConsumer::Crash, NoConsumer::Relax] {
        all.push(Control::SetNoConsumer { ring, policy });
    }
    for access in AccessType::ALL {
        all.push(Control::SetAccess { first: gfn, count: u64::MAX, access });
        all.push(Control::SetDefaultAccess { access });
    }
    for kind in TrapKind::ALL {
        all.push(Control::Inject { vcpu: VcpuId(u32::MAX), vector: 3, kind, error: u32::MAX, cr2: u64::MAX });
    }
    for flag in [false, true] {
        all.push(Control::Disable { ring, drain: flag });
        all.push(Control::SetAccessRequired { required: flag });
        all.push(Control::Prep { gfn, buffer: flag });
        all.push(Control::SingleStep { vcpu: VcpuId(u32::MAX), on: flag });
        for kind in CpuEventKind::ALL {
            for mode in [MonitorMode::Disabled, MonitorMode::Async, MonitorMode::Sync] {
                all.push(Control::Monitor { kind, mode, on_change_only: flag });
            }
        }
    }
    all
}

#[test]
fn every_call_crosses_the_socket_unchanged() {
    let (gfn, vcpu) = (Gfn(u64::MAX), VcpuId(3));
    let mut calls = vec![
        Call::Hello { version: 1 },
        Call::Info,
        Call::Subscribe,
        Call::Release { vcpu },
        Call::ReadFrame { gfn, offset: 4095, len: 1 },
        Call::WriteFrame { gfn, offset: 0, bytes: vec![1, 2, 3] },
        Call::Load { gfn, content: vec![7; 4096].into() },
        Call::Vcpus { first: VcpuId(0) },
        Call::Types { first: Gfn(0x100) },
        Call::SetPageFile,
        Call::PageFile,
        Call::Devices,
        Call::EndTrace,
        Call::Rings,
        Call::Monitors,
        Call::Memory { beyond: false },
        Call::Memory { beyond: true },
        Call::Map { gfn, write: true },
        Call::SetBreakpoint { gfn, offset: 4095, stays: true },
        Call::ClearBreakpoint { gfn, offset: 1 },
        Call::Breakpoints { first: Gpa(0x1001) },
    ];
    calls.extend(controls().into_iter().map(Call::Control));
    for (sequence, call) in (0..).zip(calls) {
        let (back, _, decoded) =
            Call::decode(&call.encode(sequence)).unwrap_or_else(|error| panic!("{call:?}: {error}"));
        assert_eq!((back, decoded), (sequence, call));
    }
}

#[test]
fn numbers_that_mean_nothing_are_refused_with_a_sentence() {
    let monitor =
        Call::Control(Control::Monitor { kind: CpuEventKind::Msr, mode: MonitorMode::Sync, on_change_only: true });
    let enable = Call::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 });
    let policy = Call::Control(Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Wait });
    // Call, argument, number: beyond what there is, and beyond what fits.
    for (call, argument) in [(&monitor, 0), (&monitor, 1), (&monitor, 2), (&enable, 0), (&enable, 1), (&policy, 1)] {
        for number in [99_u64, 256, u64::MAX] {
            let mut bytes = call.encode(1);
            bytes[16 + 8 * argument..24 + 8 * argument].copy_from_slice(&number.to_le_bytes());
            let Malformed(sentence) = Call::decode(&bytes).expect_err("the number means nothing");
            assert!(!sentence.is_empty() && Malformed(sentence.clone()).to_string().contains(&sentence));
        }
    }
}

#[test]
fn replies_and_notices_cross_the_socket_unchanged() {
    let info = Info { vcpus: 1, frames: 2, resident: 3, paged: 4, budget: 5 };
    assert_eq!(Info::from_values(info.values()), info);
    let refused = Reply::Refused(Errno::EBUSY, "somebody is there".to_string());
    for reply in [Reply::Done(info.values()), Reply::Bytes(vec![1; 100]), refused] {
        assert_eq!(Reply::decode(&reply.encode(9, 2)), Ok((9, reply)));
    }
    let checkpoint = Notice::Checkpoint { vcpu: VcpuId(1), number: 2, arguments: [3, 4, 5] };
    let place = Notice::Place { vcpu: VcpuId(1), gpa: Gpa(2), arguments: [3, 4, 5] };
    for notice in [checkpoint, place, Notice::Crashed("why".to_string()), Notice::Ended, Notice::Kill(Ring::Access)] {
        assert!(Notice::is_notice(&notice.encode()));
        assert_eq!(Notice::decode(&notice.encode()), Ok(notice));
    }
}

#[test]
fn addresses_and_frames_convert_into_each_other() {
    let gpa = Gpa(0x1234_5678);
    assert_eq!((gpa.gfn(), gpa.offset(), Gfn(0x12345).gpa()), (Gfn(0x12345), 0x678, Gpa(0x1234_5000)));
    let shown = (gpa.to_string(), Gla(16).to_string(), VcpuId(3).to_string(), format!("{:?}", Gfn(17)));
    assert_eq!(shown, ("0x12345678".into(), "0x10".into(), "3".into(), "Gfn(0x11)".into()));
}

#[test]
fn access_types_have_xens_names_and_numbers() {
    for (number, access) in (0..).zip(AccessType::ALL) {
        assert_eq!(access.to_string().parse(), Ok(access));
        assert_eq!(AccessType::from_number(number), Some(access));
    }
    assert_eq!(AccessType::from_number(10), None);
    assert!("xw".parse::<AccessType>().is_err_and(|sentence| sentence.contains("n2rwx")));
    assert_eq!(Rights::R.union(Rights::X).to_string(), "r-x");
    assert_eq!(format!("{:?}", Rights::RWX), "Rights(rwx)");
}

#[test]
fn flags_and_errors_are_shown_by_name() {
    assert_eq!(Flags(0b1001).to_string(), "VCPU_PAUSED|FOREIGN");
    assert!(Flags(1 << 31 | 1).to_string().ends_with("|0x80000000"));
    assert_eq!(Errno::EOPNOTSUPP.to_string(), "EOPNOTSUPP");
    assert_eq!((Errno::from_number(31), Errno::from_number(0)), (Some(Errno::EMLINK), None));
    for malformed in [
        wire::Malformed::Type(1),
        wire::Malformed::Reason(2),
        wire::Malformed::P2mType(3),
        wire::Malformed::Offset(4),
        wire::Malformed::Version(5),
        wire::Malformed::Register(6),
    ] {
        assert!(malformed.to_string().len() > 8, "{malformed:?}");
    }
}

#[test]
fn a_page_shows_its_indices() {
    let page = RingPage::heap();
    page.init();
    let shown = format!("{page:?}");
    assert!(shown.contains("req_event: 1") && shown.contains("rsp_prod: 0"), "{shown}");
}

#[test]
fn a_consumer_that_echoes_lets_things_go_on() {
    for layout in [Layout::Flags16, Layout::Flags32, Layout::VmEvent7] {
        let mut bench = Bench::new(1);
        assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
        bench.watch(3, AccessType::N);
        assert!(bench.domain.is_watching());
        assert!(!bench.back(Ring::Access).echo());
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
        assert!(bench.back(Ring::Access).echo());
        bench.kick(Ring::Access);
        assert_eq!(bench.woken(), [0]);
        bench.watch(3, AccessType::Rwx);
        assert!(!bench.domain.is_watching());
    }
}

#[test]
fn a_domain_says_which_frames_hold_memory() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.domain.rights().frames(), FRAMES);
    assert!(bench.domain.is_held(Gfn(4)) && !bench.domain.is_held(Gfn(FRAMES)));
    bench.enable(Ring::Paging, 0);
    bench.page_out(4);
    assert!(!bench.domain.is_held(Gfn(4)));
}

#[test]
fn what_cannot_be_is_refused_at_the_edges_too() {
    let mut bench = Bench::with(DomainConfig { hap: false, ..config(1) });
    assert_eq!(bench.refused(Control::NominateShare { gfn: Gfn(1) }), Errno::ENODEV);
    let mut bench = Bench::new(1);
    let mut pins = 0;
    while bench.control(Control::Pin { gfn: Gfn(1) }) == Outcome::Proceed {
        pins += 1;
    }
    assert!(pins >= 63);
    assert_eq!(bench.refused(Control::Pin { gfn: Gfn(1) }), Errno::EBUSY);
    let _ = bench.step(&Input::Destroy);
    let unpopulated = bench.step(&Input::Unpopulated { first: Gfn(1), count: 1 });
    assert!(matches!(unpopulated, Outcome::Refused(Errno::EINVAL, _)));
    assert_eq!(bench.refused(Control::NominateShare { gfn: Gfn(1) }), Errno::EINVAL);
}

/// No sentence shows a name of Rust's: types of frames are Xen's, calls and operations are in words.
#[test]
fn a_refusal_names_types_of_frames_as_xen_does_and_calls_in_words() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Paging, 0);
    bench.page_out(3);
    for (control, what) in [
        (Control::Nominate { gfn: Gfn(3) }, "frame 0x3 is p2m_ram_paged, not pageable"),
        (Control::Evict { gfn: Gfn(3) }, "frame 0x3 is p2m_ram_paged, not nominated"),
        (Control::Prep { gfn: Gfn(4), buffer: true }, "frame 0x4 is p2m_ram_rw, not paged out"),
        (Control::NominateShare { gfn: Gfn(3) }, "frame 0x3 is p2m_ram_paged, not sharable"),
        (Control::Pin { gfn: Gfn(FRAMES) }, "frame 0x20 is p2m_mmio_dm"),
        (Control::Drop { gfn: Gfn(FRAMES) }, "frame 0x20 is p2m_mmio_dm"),
    ] {
        let Outcome::Refused(_, sentence) = bench.control(control) else { panic!("{what}") };
        assert_eq!(sentence, what);
    }
    let (gfn, offset) = (Gfn(3), 0x10);
    for (call, words) in [
        (Call::Control(Control::Nominate { gfn }), "nominate gfn 0x3"),
        (Call::ReadFrame { gfn, offset, len: 8 }, "read of 8 bytes at frame 0x3 offset 0x10"),
        (Call::WriteFrame { gfn, offset, bytes: vec![1, 2] }, "write of 2 bytes at frame 0x3 offset 0x10"),
        (Call::Load { gfn, content: vec![0; 4096].into() }, "load of frame 0x3"),
        (Call::Release { vcpu: VcpuId(2) }, "release of vCPU 2"),
    ] {
        assert_eq!(call.to_string(), words);
    }
}
