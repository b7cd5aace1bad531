//! The bytes of each layout, fixed.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use mem_event::wire::{self, Malformed, vm_event};
use mem_event::{
    About, Cpu, CpuEventKind, DescriptorTable, Event, Flags, Gfn, Gla, Layout, P2mType, Request, Response, Rights,
    Ring, TrapKind, VcpuId,
};

const LAYOUTS: [Layout; 3] = [Layout::Flags16, Layout::Flags32, Layout::VmEvent7];

fn violation() -> Request {
    Request {
        flags: Flags::VCPU_PAUSED,
        vcpu: VcpuId(3),
        event: Event::Violation {
            gfn: Gfn(0x1_2345),
            offset: 0xabc,
            gla: Some(Gla(0xffff_8880_0001_2abc)),
            rights: Rights::RW,
            in_gpt: false,
        },
        view: mem_event::ViewId::HOST,
    }
}

fn cpu(event: Cpu) -> Request {
    Request { event: Event::Cpu(event), ..violation() }
}

/// One CPU event of each kind.
fn cpu_events() -> [Cpu; CpuEventKind::ALL.len()] {
    let (new, old, rip, gfn) = (0x1_2345, 0xffff_8880_0001_2abc, Gla(0xffff_8880_0001_2abc), Gfn(0x1_2345));
    [
        Cpu::Cr0 { new, old },
        Cpu::Cr3 { new, old },
        Cpu::Cr4 { new, old },
        Cpu::Msr { msr: 0xc000_0080, new, old: 0 },
        Cpu::Int3 { rip, gfn },
        Cpu::SingleStep { rip, gfn },
        Cpu::Cpuid { leaf: 0x8000_0001, subleaf: 7, length: 2 },
        Cpu::Descriptor { table: DescriptorTable::Idtr, is_write: true, information: 0x3142_8105, qualification: 0 },
        Cpu::GuestRequest,
        Cpu::Io { port: 0x3f8, bytes: 1, is_read: true, is_string: true },
        Cpu::Xcr0 { new, old },
        Cpu::Debug { rip, gfn, causes: 0, length: 0 },
        Cpu::Interrupt { vector: 14, kind: TrapKind::Exception, error: 2, cr2: 0 },
    ]
}

/// One request of each kind.
fn requests() -> Vec<(Ring, Request)> {
    let gfn = Gfn(0x1_2345);
    let request = |ring, flags, event| (ring, Request { flags: Flags(flags), event, ..violation() });
    let paging = |flags, p2mt| request(Ring::Paging, flags, Event::Paging { gfn, p2mt });
    let sharing = |flags, p2mt| request(Ring::Sharing, flags, Event::Sharing { gfn, p2mt });
    let unknown = Event::Violation { gfn, offset: 0xabc, gla: None, rights: Rights::X, in_gpt: false };
    let mut requests = vec![
        (Ring::Access, violation()),
        (Ring::Access, Request { flags: Flags::FOREIGN, event: unknown, ..violation() }),
        paging(0b101, P2mType::RamPagingOut),
        paging(0b1010, P2mType::RamPaged),
        paging(0b1000, P2mType::RamPagingIn),
        sharing(0b1, P2mType::RamShared),
        sharing(0b1000, P2mType::PopulateOnDemand),
    ];
    requests.extend(cpu_events().map(|event| (Ring::Access, cpu(event))));
    requests
}

#[test]
fn a_violation_in_flags16_is_these_bytes() {
    let golden = [
        2, 0, // type: access
        1, 0, // flags: VCPU_PAUSED
        3, 0, 0, 0, // vcpu_id
        0x45, 0x23, 0x01, 0, 0, 0, 0, 0, // gfn
        0xbc, 0x0a, 0, 0, 0, 0, 0, 0, // offset
        0xbc, 0x2a, 0x01, 0x00, 0x80, 0x88, 0xff, 0xff, // gla
        0, 0, 0, 0, // p2mt
        0b1011, 0, // r, w, gla_valid
        1, 0, // reason: violation
    ];
    assert_eq!(wire::request_bytes(Layout::Flags16, Ring::Access, &violation()), golden);
}

#[test]
fn a_violation_in_flags32_is_these_bytes() {
    let golden = [
        1, 0, 0, 0, // flags: VCPU_PAUSED
        3, 0, 0, 0, // vcpu_id
        0x45, 0x23, 0x01, 0, 0, 0, 0, 0, // gfn
        0xbc, 0x0a, 0, 0, 0, 0, 0, 0, // offset
        0xbc, 0x2a, 0x01, 0x00, 0x80, 0x88, 0xff, 0xff, // gla
        0, 0, 0, 0, // p2mt
        0b1011, 0, // r, w, gla_valid
        1, 0, // reason: violation
    ];
    assert_eq!(wire::request_bytes(Layout::Flags32, Ring::Access, &violation()), golden);
}

#[test]
fn a_violation_in_vm_event_7_is_these_bytes() {
    let mut golden = [0; 400];
    golden[..24].copy_from_slice(&[
        7, 0, 0, 0, // version
        1, 0, 0, 0, // flags: VCPU_PAUSED
        1, 0, 0, 0, // reason: mem_access
        3, 0, 0, 0, // vcpu_id
        0, 0, 0, 0, 0, 0, 0, 0, // altp2m_idx, padding
    ]);
    golden[24..52].copy_from_slice(&[
        0x45, 0x23, 0x01, 0, 0, 0, 0, 0, // gfn
        0xbc, 0x0a, 0, 0, 0, 0, 0, 0, // offset
        0xbc, 0x2a, 0x01, 0x00, 0x80, 0x88, 0xff, 0xff, // gla
        0b1_1011, 0, 0, 0, // r, w, gla_valid, fault_with_gla
    ]);
    assert_eq!(wire::request_bytes(Layout::VmEvent7, Ring::Access, &violation()), golden);
}

#[test]
fn the_seed_numbers_its_p2m_types_as_they_were_then() {
    let p2mt = |layout, p2mt| {
        let request = Request { event: Event::Paging { gfn: Gfn(1), p2mt }, ..violation() };
        wire::request_bytes(layout, Ring::Paging, &request)[32]
    };
    let types = [P2mType::RamPaged, P2mType::RamPagingIn, P2mType::RamShared, P2mType::RamBroken];
    assert_eq!(types.map(|t| p2mt(Layout::Flags16, t)), [10, 12, 13, 14]);
    assert_eq!(types.map(|t| p2mt(Layout::Flags32, t)), [10, 11, 12, 13]);
}

#[test]
fn paging_flags_of_vm_event_7_stand_beside_the_frame() {
    let event = Event::Paging { gfn: Gfn(0x1_2345), p2mt: P2mType::RamPagingOut };
    let request = Request { flags: Flags(0b1110), event, ..violation() };
    let bytes = wire::request_bytes(Layout::VmEvent7, Ring::Paging, &request);
    assert_eq!(bytes[4..12], [0b10, 0, 0, 0, 3, 0, 0, 0], "FOREIGN is bit 1; the reason is mem_paging");
    assert_eq!(bytes[32..40], [9, 0, 0, 0, 0b11, 0, 0, 0], "p2mt; DROP_PAGE, EVICT_FAIL");
}

#[test]
fn cpu_events_of_vm_event_7_have_a_union_each() {
    let [_, _, cr4, msr, int3, ..] =
        cpu_events().map(|event| wire::request_bytes(Layout::VmEvent7, Ring::Access, &cpu(event)));
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((cr4[8], cr4[24]), (4, 2));
    assert_eq!((word(&cr4, 32), word(&cr4, 40)), (0x1_2345, 0xffff_8880_0001_2abc), "new, old");
    assert_eq!((msr[8], word(&msr, 24), word(&msr, 32)), (5, 0xc000_0080, 0x1_2345), "msr, new");
    assert_eq!((int3[8], word(&int3, 24), int3[40], int3[44]), (6, 0x1_2345, 1, 6));
    assert_eq!(word(&int3, 208), 0xffff_8880_0001_2abc, "rip");
}

#[test]
fn a_control_registers_old_value_comes_without_gla_valid() {
    let [cr0, cr3, ..] = cpu_events();
    for (layout, event) in [(Layout::Flags16, cr0), (Layout::Flags32, cr3)] {
        let bytes = wire::request_bytes(layout, Ring::Access, &cpu(event));
        assert_eq!(bytes[36], 0);
        assert_eq!(bytes[24..32], 0xffff_8880_0001_2abc_u64.to_le_bytes());
    }
}

#[test]
fn what_is_at_an_address_comes_with_its_offset_and_gla_valid() {
    let [_, _, _, _, int3, step, ..] = cpu_events();
    for event in [int3, step] {
        let bytes = wire::request_bytes(Layout::Flags32, Ring::Access, &cpu(event));
        assert_eq!((bytes[16], bytes[17], bytes[36]), (0xbc, 0xa, 1 << 3));
    }
}

#[test]
fn every_request_reads_back_in_every_layout() {
    for layout in LAYOUTS {
        for (ring, request) in requests() {
            let bytes = wire::request_bytes(layout, ring, &request);
            assert_eq!(wire::read_request(layout, ring, &bytes), Ok(request), "{layout:?}");
            let answer = request.answer();
            let bytes = wire::response_bytes(layout, ring, &answer);
            assert_eq!(wire::read_response(layout, ring, &bytes), answer, "{layout:?}");
        }
    }
}

#[test]
fn a_response_that_echoes_nothing_keeps_flags_vcpu_and_frame() {
    for layout in LAYOUTS {
        for ring in Ring::ALL {
            let flags = if layout == Layout::VmEvent7 { Flags::FOREIGN } else { Flags(0xffe1) };
            let response = Response {
                flags,
                vcpu: u32::MAX,
                about: About::Other(u64::MAX),
                other_version: None,
                view: mem_event::ViewId::HOST,
            };
            let got = wire::read_response(layout, ring, &wire::response_bytes(layout, ring, &response));
            assert_eq!((got.flags, got.vcpu, got.subject()), (flags, u32::MAX, u64::MAX), "{layout:?} {ring}");
        }
    }
}

#[test]
fn a_response_of_another_version_says_so_and_nothing_else() {
    let mut bytes = wire::response_bytes(Layout::VmEvent7, Ring::Access, &violation().answer());
    bytes[0] = 6;
    let response = wire::read_response(Layout::VmEvent7, Ring::Access, &bytes);
    let nothing = Response {
        flags: Flags::NONE,
        vcpu: 0,
        about: About::Other(0),
        other_version: Some(6),
        view: mem_event::ViewId::HOST,
    };
    assert_eq!(response, nothing);
    assert_eq!(wire::response_bytes(Layout::VmEvent7, Ring::Access, &response)[..4], [6, 0, 0, 0]);
    assert_eq!(wire::read_request(Layout::VmEvent7, Ring::Access, &bytes), Err(Malformed::Version(6)));
}

#[test]
fn vm_event_flags_keep_what_xen_knows() {
    let bits = |number: u32| {
        let mut bytes = wire::response_bytes(Layout::VmEvent7, Ring::Access, &violation().answer());
        bytes[4..8].copy_from_slice(&number.to_le_bytes());
        let response = wire::read_response(Layout::VmEvent7, Ring::Access, &bytes);
        let back = wire::response_bytes(Layout::VmEvent7, Ring::Access, &response);
        assert_eq!(back[4..8], number.to_le_bytes());
        response.flags
    };
    assert_eq!(bits(1 << 2), Flags::EMULATE);
    assert_eq!(bits(1 << 3), Flags::EMULATE_NOWRITE);
    assert_eq!(bits(1 << 4), Flags::TOGGLE_SINGLESTEP);
    (0..16).for_each(|bit| assert_ne!(bits(1 << bit), Flags::NONE));
}

#[test]
fn registers_stand_at_their_offsets_and_read_back() {
    let segment = |n: u64| vm_event::Segment {
        base: 0x1000 * n,
        limit: 0xf_0000 + n as u32,
        rights: 0xa90 + n as u16,
        selector: 8 * n as u16,
    };
    let registers = vm_event::Registers {
        general: std::array::from_fn(|n| 0x1111 * n as u64),
        rflags: 0x202,
        debug: [0xffff_0ff0, 0x400],
        rip: 0xffff_ffff_8100_0000,
        control: [0x8005_0033, 0xdead, 0x1000, 0x6f0],
        sysenter: [0x10, 0x20, 0x30],
        efer: 0xd01,
        star: 0x23_0010 << 32,
        lstar: 0xffff_ffff_8200_0000,
        gdtr_base: 0xffff_fe00_0000_1000,
        gdtr_limit: 0x7f,
        segments: std::array::from_fn(|n| segment(n as u64 + 1)),
        shadow_gs: 0xffff_8880_3fc0_0000,
    };
    let slot = vm_event::request(&violation(), Some(&registers));
    assert_eq!(vm_event::read_registers(&slot), registers);
    let bytes: Vec<u8> = slot.iter().flat_map(|word| word.to_le_bytes()).collect();
    let data = &bytes[56..];
    let word = |at: usize| u64::from_le_bytes(data[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
    let short = |at: usize| u16::from_le_bytes(data[at..at + 2].try_into().unwrap());
    assert_eq!((word(8), word(32), word(120)), (0x1111, 0x4444, 0xffff), "rcx, rsp, r15");
    assert_eq!((word(128), word(136), word(144), word(152)), (0x202, 0xffff_0ff0, 0x400, registers.rip));
    assert_eq!((word(160), word(168), word(176), word(184)), (0x8005_0033, 0xdead, 0x1000, 0x6f0));
    assert_eq!((word(192), word(208), word(216), word(224)), (0x10, 0x30, 0xd01, registers.star));
    assert_eq!((word(232), word(240)), (registers.lstar, registers.gdtr_base));
    assert_eq!((word(248), word(256)), (0, u64::MAX), "npt_base, vmtrace_pos");
    assert_eq!((half(264), half(268), half(272), half(276)), (0x1000, 0x2000, 0x3000, 0x4000));
    assert_eq!((word(280), word(288)), (0x5000, 0x6000));
    assert_eq!((half(296), half(316)), (0xa91f_0001, 0xa96f_0006), "cs and gs: limit, rights");
    assert_eq!((word(320), short(328), short(330), short(340)), (registers.shadow_gs, 0x7f, 8, 48));
}

#[test]
fn a_violation_says_whether_the_access_itself_or_the_walk_of_page_tables_made_it() {
    let bits = |gla, in_gpt| {
        let event = Event::Violation { gfn: Gfn(1), offset: 0, gla, rights: Rights::R, in_gpt };
        let request = Request { event, ..violation() };
        let bytes = wire::request_bytes(Layout::VmEvent7, Ring::Access, &request);
        assert_eq!(wire::read_request(Layout::VmEvent7, Ring::Access, &bytes), Ok(request));
        bytes[48]
    };
    let (read, gla_valid, with_gla, in_gpt) = (1, 8, 16, 32);
    assert_eq!(bits(Some(Gla(0)), false), read | gla_valid | with_gla);
    assert_eq!(bits(Some(Gla(0)), true), read | gla_valid | in_gpt);
    assert_eq!(bits(None, true), read | in_gpt);
    assert_eq!(bits(None, false), read, "a device, or the processor otherwise");
    assert_eq!(wire::request_bytes(Layout::Flags32, Ring::Access, &violation())[36], 0b1011, "not in 4.2's layout");
}

#[test]
fn a_model_specific_register_has_its_old_value_where_there_is_room() {
    let event = Event::Cpu(Cpu::Msr { msr: 0xc000_0082, new: 0x1234, old: 0x5678 });
    let bytes = wire::request_bytes(Layout::VmEvent7, Ring::Access, &Request { event, ..violation() });
    assert_eq!(bytes[24..48], [0xc000_0082_u64, 0x1234, 0x5678].map(u64::to_le_bytes).concat());
}

#[test]
fn an_instruction_that_exits_stands_where_xens_structure_has_it() {
    let union = |cpu: Cpu| wire::request_bytes(Layout::VmEvent7, Ring::Access, &self::cpu(cpu))[24..56].to_vec();
    let words = |words: [u32; 8]| words.map(u32::to_le_bytes).concat();
    let cpuid = Cpu::Cpuid { leaf: 0x8000_0001, subleaf: 7, length: 2 };
    assert_eq!(union(cpuid), words([2, 0x8000_0001, 7, 0, 0, 0, 0, 0]));
    let (table, qualification) = (DescriptorTable::Tr, 0xffff_ffff_0000_0010);
    let descriptor = Cpu::Descriptor { table, is_write: true, information: 0x3142_8105, qualification };
    assert_eq!(union(descriptor), words([0x3142_8105, 0, 0x10, 0xffff_ffff, 0x104, 0, 0, 0]));
    let io = Cpu::Io { port: 0xcf8, bytes: 4, is_read: true, is_string: false };
    assert_eq!(union(io), words([4, 0x0001_0cf8, 0, 0, 0, 0, 0, 0]));
    assert_eq!(union(Cpu::GuestRequest), words([0; 8]));
    let debug =
        |causes, length| union(Cpu::Debug { rip: Gla(0x1_0000_0000_0abc), gfn: Gfn(0x10_0000_0123), causes, length });
    assert_eq!(debug(0, 1), words([0x123, 0x10, 0, 0, 1, 5, 0, 0]), "by int1");
    assert_eq!(debug(0x4001, 0), words([0x123, 0x10, 0x4001, 0, 0, 3, 0, 0]), "by a step and DR0");
    let (kind, cr2) = (TrapKind::Exception, 0xffff_8880_0000_1abc);
    let interrupt = Cpu::Interrupt { vector: 14, kind, error: 0x17, cr2 };
    assert_eq!(union(interrupt), words([14, 3, 0x17, 0, 0x1abc, 0xffff_8880, 0, 0]));
}

#[test]
fn no_bytes_make_a_reader_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200_000_u64 {
        let (layout, ring) = (LAYOUTS[(round % 3) as usize], Ring::ALL[(round / 3 % 3) as usize]);
        let mut bytes = wire::request_bytes(layout, ring, &violation());
        for _ in 0..1 + random() % 8 {
            let at = (random() % 52) as usize % bytes.len();
            bytes[at] = random() as u8;
        }
        bytes.truncate((random() % 512) as usize);
        let response = wire::read_response(layout, ring, &bytes);
        if let Ok(request) = wire::read_request(layout, ring, &bytes) {
            assert_eq!(response.echo(), Some(request));
            assert!(!matches!(request.event, Event::Violation { offset: 4096.., .. }));
        }
    }
}
