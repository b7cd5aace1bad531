//! docs/protocol.md says what the code does: its tables are compared with what is encoded and decoded.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

use mem_event::message::{
    BreakpointReport, Call, DeviceReport, HEADER, LARGEST, Notice, Reply, Stays, VERSION, VcpuReport, VcpuState,
    frame_byte, frame_of_byte,
};
use mem_event::registers::Context;
use mem_event::{
    AccessType, Cpu, CpuEventKind, DescriptorTable, Errno, Event, Flags, Gfn, Gla, Gpa, Layout, MonitorMode,
    NoConsumer, P2mType, Request, Rights, Ring, TrapKind, VcpuId, ViewId, wire,
};
use std::collections::BTreeMap;
use std::fmt::Debug;

const PAGE: &str = include_str!("../../docs/protocol.md");

/// The rows of the table with this heading, as cells; of its last cells some may be left out.
fn table(heading: &str, whole: bool) -> Vec<Vec<&'static str>> {
    let is = |line: &&str| if whole { *line == heading } else { line.starts_with(heading) };
    let mut lines = PAGE.lines().skip_while(|line| !is(line));
    assert!(lines.next().is_some(), "no table {heading}");
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

/// A table of names and numbers.
fn numbers(heading: &str) -> BTreeMap<u64, String> {
    table(heading, false).iter().map(|row| (row[1].parse().unwrap(), row[0].to_owned())).collect()
}

fn named<T: Debug + Copy>(all: impl IntoIterator<Item = (T, u64)>) -> BTreeMap<u64, String> {
    all.into_iter().map(|(one, number)| (number, format!("{one:?}"))).collect()
}

/// A call's packet with its operation, arguments and payload put in by hand.
fn packet(kind: u16, operation: u16, arguments: [u64; 5], payload: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + payload];
    bytes[0..4].copy_from_slice(b"MEV1");
    bytes[4..6].copy_from_slice(&kind.to_le_bytes());
    bytes[6..8].copy_from_slice(&operation.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        bytes[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
    }
    bytes[56..60].copy_from_slice(&u32::try_from(payload).unwrap().to_le_bytes());
    bytes
}

/// The call that a packet is, as text. The payload is as long as a frame only where it must be.
fn call(operation: u16, arguments: [u64; 5]) -> Option<String> {
    let decode = |payload| Call::decode(&packet(1, operation, arguments, payload)).ok();
    let (_, _, call) = decode(0).or_else(|| decode(4096)).or_else(|| decode(Context::BYTES))?;
    let text = format!("{call:?}");
    Some(text.strip_prefix("Control(").and_then(|text| text.strip_suffix(')')).map_or(text.clone(), str::to_owned))
}

/// A value of every argument of an operation: 1, but 0 of the kind of what is injected.
fn ones(operation: u16) -> [u64; 5] {
    if operation == 35 { [1, 1, 0, 1, 1] } else { [1; 5] }
}

/// `Name { a: …, b: … }` as the name and the fields with their values.
fn parts(text: &str) -> (String, Vec<(String, String)>) {
    let Some((name, fields)) = text.split_once(" { ") else { return (text.to_owned(), Vec::new()) };
    let fields = fields.trim_end_matches(" }").split(", ").filter_map(|field| field.split_once(": "));
    (name.to_owned(), fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn every_call_is_listed_with_its_number_and_its_arguments_in_order() {
    let rows = table("| operation | name | arguments | payload | what", false);
    let listed: Vec<(u16, String)> = rows.iter().map(|row| (row[0].parse().unwrap(), row[1].to_owned())).collect();
    let known = (0..=u16::from(u8::MAX)).filter_map(|number| Some((number, parts(&call(number, ones(number))?).0)));
    assert_eq!(listed, known.collect::<Vec<_>>());
    for row in rows {
        let number = row[0].parse().unwrap();
        let arguments: Vec<&str> = row[2].split(", ").filter(|argument| !argument.is_empty()).collect();
        let plain = parts(&call(number, ones(number)).unwrap()).1;
        for index in 0..5 {
            // A flag that is not 1 can be nothing else but 0, and a ring not that.
            let changed = |value| std::array::from_fn(|at| if at == index { value } else { ones(number)[at] });
            let with = parts(&call(number, changed(2)).or_else(|| call(number, changed(0))).unwrap()).1;
            let differing: Vec<&String> =
                plain.iter().zip(&with).filter(|(one, other)| one != other).map(|((name, _), _)| name).collect();
            let named: Vec<&str> = arguments.get(index).copied().into_iter().collect();
            assert_eq!(differing, named, "argument {index} of {}", row[1]);
        }
        let payload = plain
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| ["bytes", "content", "context", "text"].contains(name));
        assert_eq!(row[3], payload.collect::<String>(), "payload of {}", row[1]);
    }
}

#[test]
fn every_notice_is_listed() {
    let rows = table("| operation | name | arguments | payload |", true);
    let rows: Vec<(u16, &str)> = rows.iter().map(|row| (row[0].parse().unwrap(), row[1])).collect();
    // Ones: no ring has the number 0.
    let decode = |number| Notice::decode(&packet(3, number, [1; 5], 0)).ok();
    let name = |notice: Notice| format!("{notice:?}").split([' ', '(']).next().unwrap().to_owned();
    let known: Vec<(u16, String)> = (0..=255).filter_map(|number| Some((number, name(decode(number)?)))).collect();
    assert_eq!(rows, known.iter().map(|(number, name)| (*number, name.as_str())).collect::<Vec<_>>());
}

#[test]
fn the_packets_fields_stand_where_the_page_says() {
    let rows = table("| offset | size | field |", true);
    let at = |name: &str| -> (usize, usize) {
        let row = rows.iter().find(|row| row[2].starts_with(name)).unwrap();
        (row[0].parse().unwrap(), row[1].parse().unwrap_or(0))
    };
    let number = |bytes: &[u8], name| {
        let (offset, size) = at(name);
        bytes[offset..offset + size].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let call = Call::ReadFrame { gfn: Gfn(0x1111), offset: 0x222, len: 0x33 }.encode(0x4444_5555);
    assert_eq!(call.len(), HEADER);
    assert_eq!(call[..4], *b"MEV1");
    assert_eq!([number(&call, "kind"), number(&call, "operation"), number(&call, "sequence")], [1, 5, 0x4444_5555]);
    let (arguments, _) = at("five");
    assert_eq!(call[arguments..arguments + 3], [0x11, 0x11, 0]);
    assert_eq!(call[arguments + 8..arguments + 10], [0x22, 0x02]);
    let refused = Reply::Refused(Errno::EBUSY, "why".into()).encode(7, 5);
    assert_eq!([number(&refused, "kind"), number(&refused, "error"), number(&refused, "length")], [2, 16, 3]);
    assert_eq!(refused[at("payload").0..], *b"why");
    assert_eq!(LARGEST, at("payload").0 + 4096);
}

#[test]
fn a_vcpus_fields_stand_where_the_page_says() {
    let plain = VcpuReport { state: VcpuState::Running, ring: None, frame: Some(Gfn(0)), waited: 0, stays: None };
    let rows = table("| offset | size | of a vCPU's", false);
    let changed = [
        VcpuReport { state: VcpuState::Checkpoint, ..plain },
        VcpuReport { ring: Some(Ring::Sharing), ..plain },
        VcpuReport { stays: Some(Stays::Written), ..plain },
        VcpuReport { waited: u32::MAX, ..plain },
        VcpuReport { frame: None, ..plain },
    ];
    assert_eq!(rows.len(), changed.len());
    for (row, report) in rows.iter().zip(changed) {
        let (bytes, unchanged) = (report.encode(), plain.encode());
        let differing: Vec<usize> = (0..VcpuReport::BYTES).filter(|at| bytes[*at] != unchanged[*at]).collect();
        let (at, size): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(differing, (at..at + size).collect::<Vec<_>>(), "{row:?}");
        assert_eq!(VcpuReport::decode_all(&[unchanged, bytes].concat()), Ok(vec![plain, report]));
    }
    assert!(VcpuReport::decode_all(&[0; 15]).is_err() && VcpuReport::decode_all(&[7; 16]).is_err());
}

#[test]
fn a_breakpoints_fields_stand_where_the_page_says() {
    let plain = BreakpointReport { gpa: Gpa(0), connection: None, beneath: 0, stays: false, is_own: false };
    let rows = table("| offset | size | of a breakpoint's", false);
    let changed = [
        BreakpointReport { gpa: Gpa(u64::MAX), ..plain },
        BreakpointReport { connection: Some(u32::MAX), ..plain },
        BreakpointReport { beneath: 0x90, ..plain },
        BreakpointReport { stays: true, is_own: true, ..plain },
    ];
    assert_eq!(rows.len(), changed.len() + 1, "and two bytes of zeros");
    for (row, report) in rows.iter().zip(changed) {
        let bytes = report.encode();
        let differing: Vec<usize> = (0..BreakpointReport::BYTES).filter(|at| bytes[*at] != 0).collect();
        let (at, size): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(differing, (at..at + size).collect::<Vec<_>>(), "{row:?}");
        assert_eq!(BreakpointReport::decode_all(&[plain.encode(), bytes].concat()), Ok(vec![plain, report]));
    }
    for (report, flags) in
        [(BreakpointReport { stays: true, ..plain }, 1), (BreakpointReport { is_own: true, ..plain }, 2)]
    {
        assert_eq!(report.encode()[13], flags);
    }
    assert!(BreakpointReport::decode_all(&[0; 15]).is_err());
}

#[test]
fn the_access_of_a_device_that_waits_is_16_bytes_as_documented() {
    let report = DeviceReport { gfn: Gfn(0x0123_4567_89ab_cdef), waited: 0x8765_4321 };
    let bytes = report.encode();
    assert_eq!(bytes, [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 1, 0x21, 0x43, 0x65, 0x87, 0, 0, 0, 0]);
    assert_eq!(DeviceReport::decode_all(&[bytes, [0; 16]].concat()).map(|all| (all[0], all.len())), Ok((report, 2)));
    assert!(DeviceReport::decode_all(&bytes[1..]).is_err());
}

#[test]
fn a_frames_byte_holds_every_type() {
    for kind in P2mType::ALL {
        for held in [false, true] {
            assert_eq!(frame_of_byte(frame_byte(kind, held)), Some((kind, held)));
        }
    }
    assert_eq!(frame_of_byte(14), None);
}

#[test]
fn every_number_is_listed() {
    assert_eq!(numbers("| ring | number |"), named(Ring::ALL.map(|one| (one, one as u64))));
    assert_eq!(numbers("| access type | number |"), named(AccessType::ALL.map(|one| (one, one as u64))));
    assert_eq!(numbers("| CPU event | number |"), named(CpuEventKind::ALL.map(|one| (one, one as u64))));
    let policies = [NoConsumer::Wait, NoConsumer::Crash, NoConsumer::Relax];
    assert_eq!(numbers("| no consumer | number |"), named(policies.map(|one| (one, one as u64))));
    let modes = [MonitorMode::Disabled, MonitorMode::Async, MonitorMode::Sync];
    assert_eq!(numbers("| monitor mode | number |"), named(modes.map(|one| (one, one as u64))));
    assert_eq!(numbers("| state | number |"), named(VcpuState::ALL.map(|one| (one, one as u64))));
    let errors = (0..=u8::MAX).filter_map(|number| Some((Errno::from_number(number)?, u64::from(number))));
    assert_eq!(numbers("| error | number |"), named(errors));
    assert!(PAGE.contains(&format!("The protocol's version is {VERSION},")));
}

#[test]
fn every_layout_is_listed_with_its_sizes() {
    let rows = table("| layout | number | bytes", false);
    let layouts = [Layout::Flags16, Layout::Flags32, Layout::VmEvent7];
    assert_eq!(rows.len(), layouts.len());
    for (row, layout) in rows.iter().zip(layouts) {
        let numbers = [layout as usize, layout.slot_bytes(), layout.max_slots() as usize];
        assert_eq!(row[0], format!("{layout:?}"));
        assert_eq!(row[1..], numbers.map(|number| number.to_string()));
    }
}

/// Two requests that differ in this field alone, if it is not the reason.
fn differing(field: &str) -> [Request; 2] {
    let request = |flags, vcpu, event| Request { flags, vcpu: VcpuId(vcpu), event, view: ViewId::HOST };
    let violation = |gfn, offset, gla, rights| {
        request(Flags::NONE, 0, Event::Violation { gfn: Gfn(gfn), offset, gla: Some(Gla(gla)), rights, in_gpt: false })
    };
    let plain = violation(0, 0, 0, Rights::NONE);
    let paging = |p2mt| request(Flags::NONE, 0, Event::Paging { gfn: Gfn(0), p2mt });
    match field {
        "flags" => [plain, Request { flags: Flags::VCPU_PAUSED, ..plain }],
        // It counts with its flag alone.
        "view" => {
            let told = Request { flags: Flags::ALTERNATE_P2M, ..plain };
            [told, Request { view: ViewId(u16::MAX), ..told }]
        }
        "vcpu" => [plain, Request { vcpu: VcpuId(u32::MAX), ..plain }],
        "gfn" => [plain, violation(u64::MAX, 0, 0, Rights::NONE)],
        "offset" => [plain, violation(0, 0xfff, 0, Rights::NONE)],
        "gla" => [plain, violation(0, 0, u64::MAX, Rights::NONE)],
        "rights" => [plain, violation(0, 0, 0, Rights::RWX)],
        "p2mt" => [P2mType::RamRw, P2mType::RamPaged].map(paging),
        "reason" => [plain, request(Flags::NONE, 0, Event::Cpu(Cpu::Msr { msr: 0, new: 0, old: 0 }))],
        "version" => [plain, plain],
        other => panic!("no field {other}"),
    }
}

#[test]
fn the_slots_fields_stand_where_the_page_says() {
    for (heading, layout) in [("### flags32", Layout::Flags32), ("### vm_event7", Layout::VmEvent7)] {
        let section = PAGE.split(heading).nth(1).unwrap().split("###").next().unwrap();
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .filter(|row: &Vec<&str>| row.len() == 3)
            .collect();
        assert!(rows.len() >= 8, "{rows:?}");
        for row in rows {
            let (at, size): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
            let [plain, changed] = differing(row[2]).map(|request| wire::request_bytes(layout, Ring::Access, &request));
            if row[2] == "version" {
                assert_eq!(changed[at..at + size], 7u32.to_le_bytes());
                continue;
            }
            let differs: Vec<usize> = (0..plain.len()).filter(|at| plain[*at] != changed[*at]).collect();
            assert!(differs.contains(&at), "{layout:?} {} is not at {at}: {differs:?}", row[2]);
            assert!(
                row[2] == "reason" || differs.iter().all(|byte| (at..at + size).contains(byte)),
                "{row:?}: {differs:?}"
            );
        }
    }
}

#[test]
fn every_flag_and_reason_is_listed() {
    let flags: Vec<(String, u32)> = table("| flag | bit |", false)
        .iter()
        .map(|row| (row[0].to_owned(), 1 << row[1].parse::<u32>().unwrap()))
        .collect();
    let known = [Flags::VCPU_PAUSED, Flags::DROP_PAGE, Flags::EVICT_FAIL, Flags::FOREIGN, Flags::DUMMY];
    assert_eq!(flags, known.map(|flag| (flag.to_string(), flag.0)));
    let (rip, gfn) = (Gla(0), Gfn(0));
    let events = [
        Event::Violation { gfn, offset: 0, gla: None, rights: Rights::NONE, in_gpt: false },
        Event::Cpu(Cpu::Cr0 { new: 0, old: 0 }),
        Event::Cpu(Cpu::Cr3 { new: 0, old: 0 }),
        Event::Cpu(Cpu::Cr4 { new: 0, old: 0 }),
        Event::Cpu(Cpu::Int3 { rip, gfn }),
        Event::Cpu(Cpu::SingleStep { rip, gfn }),
        Event::Cpu(Cpu::Msr { msr: 0, new: 0, old: 0 }),
        Event::Cpu(Cpu::Cpuid { leaf: 0, subleaf: 0, length: 0 }),
        Event::Cpu(Cpu::Descriptor { table: DescriptorTable::Idtr, is_write: false, information: 0, qualification: 0 }),
        Event::Cpu(Cpu::GuestRequest),
        Event::Cpu(Cpu::Debug { rip, gfn, causes: 0, length: 0 }),
        Event::Cpu(Cpu::Interrupt { vector: 0, kind: TrapKind::Interrupt, error: 0, cr2: 0 }),
        Event::Cpu(Cpu::Xcr0 { new: 0, old: 0 }),
        Event::Cpu(Cpu::Io { port: 0, bytes: 0, is_read: false, is_string: false }),
    ];
    let on_the_wire = |event| {
        let request = Request { flags: Flags::NONE, vcpu: VcpuId(0), event, view: ViewId::HOST };
        u64::from(wire::request_bytes(Layout::Flags32, Ring::Access, &request)[38])
    };
    let name = |event: &Event| match event {
        Event::Cpu(cpu) => format!("{:?}", cpu.kind()),
        _ => "Violation".to_owned(),
    };
    let mut listed = numbers("| reason | number |");
    assert_eq!(listed.remove(&0).as_deref(), Some("none"));
    assert_eq!(listed, events.map(|event| (on_the_wire(event), name(&event))).into());
}
