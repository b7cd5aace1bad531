//! Bytes that somebody else chooses, at every place where the crate reads such bytes: control messages, slots, ring pages
//! together with operations, traces. Nothing may panic, invariants hold, and what was understood reads back the same.
//!
//! The fuzzer, and the variables that make it run for long or on one input, are `fuzz/`'s.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use mem_event::message::{Call, Notice, Reply};
use mem_event::page::Index;
use mem_event::trace::{Context, Header, Reader, Writer, replay};
use mem_event::{
    About, Access, AccessSource, AccessType, Back, Control, CpuEvent, CpuEventKind, Domain, DomainConfig, Effects,
    Errno, Event, Flags, Gfn, Gla, Input, Layout, MonitorMode, NoConsumer, Outcome, P2mType, Reason, Request, Rights,
    Ring, RingPage, TrapKind, VcpuId, ViewId, With, wire,
};
use mem_event_fuzz::{Random, Target};
use std::sync::atomic::Ordering;

const LAYOUTS: [Layout; 3] = [Layout::Flags16, Layout::Flags32, Layout::VmEvent7];

fn violation() -> Request {
    Request {
        flags: Flags::VCPU_PAUSED,
        vcpu: VcpuId(1),
        event: Event::Violation {
            gfn: Gfn(3),
            offset: 0xabc,
            gla: Some(Gla(0xffff_8880_0001_2abc)),
            rights: Rights::RW,
            in_gpt: false,
        },
        view: mem_event::ViewId::HOST,
    }
}

#[test]
fn control_messages_are_understood_or_refused() {
    let (gfn, vcpu) = (Gfn(5), VcpuId(1));
    let mut seeds = vec![
        Call::Hello { version: 1 }.encode(1),
        Call::WriteFrame { gfn, offset: 16, bytes: vec![1, 2, 3] }.encode(2),
        Call::SetBreakpoint { gfn, offset: 16, stays: false }.encode(2),
        Call::ReadFrame { gfn, offset: 16, len: 64 }.encode(3),
        Call::Load { gfn, content: vec![7; 4096].into() }.encode(4),
        Call::Release { vcpu }.encode(5),
        Reply::Done([1, 2, 3, 4, 5]).encode(6, 16),
        Reply::Bytes(vec![1, 2, 3]).encode(7, 5),
        Reply::Refused(Errno::EBUSY, "in use".into()).encode(8, 16),
        Notice::Checkpoint { vcpu, number: 3, arguments: [1, 2, 3] }.encode(),
        Notice::Crashed("why".into()).encode(),
        Notice::Ended.encode(),
        Notice::Kill(Ring::Paging).encode(),
    ];
    // Operation numbers 16 to 40 with small arguments: every control operation, and some that do not exist.
    for operation in 16..40_u16 {
        let mut packet = Call::Info.encode(9);
        packet[6..8].copy_from_slice(&operation.to_le_bytes());
        (0..5).for_each(|at| packet[16 + 8 * at] = 1);
        seeds.push(packet);
    }
    Target::new("control messages", seeds, 40_000).run(|bytes| {
        let call = Call::decode(bytes);
        if let Ok((sequence, operation, call)) = &call {
            assert_eq!(Call::decode(&call.encode(*sequence)), Ok((*sequence, *operation, call.clone())));
        }
        let reply = Reply::decode(bytes);
        if let Ok((sequence, reply)) = &reply {
            assert_eq!(Reply::decode(&reply.encode(*sequence, 9)).map(|(again, _)| again), Ok(*sequence));
        }
        let notice = Notice::decode(bytes);
        if let Ok(notice) = &notice {
            assert!(Notice::is_notice(bytes) && Notice::decode(&notice.encode()).is_ok());
        }
        format!("{call:?} {reply:?} {notice:?}").chars().take(200).collect()
    });
}

#[test]
fn slots_of_every_layout_read_back_as_they_were_understood() {
    let mut seeds = Vec::new();
    for (number, layout) in LAYOUTS.into_iter().enumerate() {
        for ring in Ring::ALL {
            let mut bytes = vec![(number * 3 + ring.index()) as u8];
            bytes.extend(wire::request_bytes(layout, ring, &violation()));
            seeds.push(bytes);
        }
    }
    Target::new("slots", seeds, 100_000).run(|bytes| {
        let Some((choice, slot)) = bytes.split_first() else { return String::new() };
        let (layout, ring) = (LAYOUTS[usize::from(*choice / 3 % 3)], Ring::ALL[usize::from(choice % 3)]);
        let request = wire::read_request(layout, ring, slot);
        if let Ok(request) = &request {
            // Where the layout tells the ring, a request may belong to another one than asked for.
            let ring = match request.event.reason() {
                Reason::Paging => Ring::Paging,
                Reason::Sharing => Ring::Sharing,
                _ => Ring::Access,
            };
            let again = wire::read_request(layout, ring, &wire::request_bytes(layout, ring, request));
            assert_eq!(again, Ok(*request));
        }
        let response = wire::read_response(layout, ring, slot);
        // A response's frame type is not asked for in `vm_event`: what is no type reads as none.
        let untyped = |echo: &Request| matches!(echo.event, Event::Paging { p2mt: P2mType::Invalid, .. });
        assert_eq!(response.echo().filter(|echo| request.is_ok() || !untyped(echo)).is_some(), request.is_ok());
        format!(
            "{layout:?} {ring} {:?} {:?}",
            request.map(|request| (request.event.reason(), request.event.rights())),
            response.other_version
        )
    });
}

const VCPUS: u32 = 4;
const FRAMES: u64 = 16;

fn header() -> Header {
    Header::of("fuzz", DomainConfig::new(VCPUS, vec![(Gfn(0), FRAMES)]))
}

/// A domain with three consumers, driven by bytes: four a step.
struct Run<'a> {
    domain: Domain,
    backs: [Option<Back>; 3],
    effects: Effects,
    writer: Writer<&'a mut Vec<u8>>,
    text: String,
}

fn of_views(vcpu: VcpuId, gfn: Gfn, access: AccessType, number: u8) -> Control {
    let view = ViewId(u16::from(number >> 4) % 12);
    match number % 20 {
        0 | 1 => Control::SetViews { on: number >> 4 != 0 },
        2 | 3 => Control::CreateView { access },
        4 => Control::DestroyView { view },
        5..9 => Control::SetViewAccess { view, first: gfn, count: 3, access },
        9 => Control::GetViewAccess { view, gfn },
        10 => Control::SetViewDefault { view, access },
        11 | 12 => Control::SwitchView { view },
        13 => Control::GetVcpuView { vcpu },
        14 => Control::Populate { gfn: Gfn(FRAMES + u64::from(number >> 5)) },
        15 => Control::Drop { gfn: Gfn(FRAMES + u64::from(number >> 5)) },
        16 => Control::ChangeGfn { view, old: gfn, new: Gfn(FRAMES + u64::from(number >> 6)) },
        17 => Control::ChangeGfn { view, old: gfn, new: Gfn(u64::from(number >> 4)) },
        18 => Control::ChangeGfn { view, old: gfn, new: Gfn::INVALID },
        _ => Control::SwitchVcpuView { vcpu, view },
    }
}

fn of_vcpu(vcpu: VcpuId, c: u8) -> Control {
    match c & 2 {
        0 => Control::SingleStep { vcpu, on: c & 1 != 0 },
        _ => {
            let kind = TrapKind::ALL[usize::from(c) % TrapKind::ALL.len()];
            Control::Inject { vcpu, vector: u32::from(c) % 8, kind, error: c.into(), cr2: c.into() }
        }
    }
}

const POLICIES: [NoConsumer; 3] = [NoConsumer::Wait, NoConsumer::Crash, NoConsumer::Relax];

impl Run<'_> {
    fn step(&mut self, input: Input) {
        self.step_with(input, With::NOTHING);
    }

    fn step_with(&mut self, input: Input, with: With<'_>) {
        self.effects.clear();
        let outcome = self.domain.apply(&input, with, &mut self.effects);
        self.writer.record(Context::default(), &input, &outcome, &self.effects);
        if let Err(why) = self.domain.check_invariants() {
            panic!("after {input:?}: {why}");
        }
        self.text.push_str(match outcome {
            Outcome::Proceed => "p",
            Outcome::Value(_) => "v",
            Outcome::Wait(_) => "w",
            Outcome::Retry(_) => "r",
            Outcome::Refused(errno, _) => errno.name(),
            Outcome::Crashed => "c",
            Outcome::Skip => "k",
            Outcome::Alone => "a",
        });
    }

    fn enable(&mut self, ring: Ring, layout: Layout, slots: u32) {
        let page = RingPage::heap();
        let back = Back::init(page.clone(), ring, layout, slots).ok();
        let before = self.text.len();
        self.step_with(Input::Control(Control::Enable { ring, layout, slots }), With::page(&page));
        if self.text[before..] == *"p" && back.is_some() {
            self.backs[ring.index()] = back;
        }
    }

    fn four(&mut self, [operation, a, b, c]: [u8; 4]) {
        let (gfn, vcpu, ring) =
            (Gfn(u64::from(b) % (FRAMES + 2)), VcpuId(u32::from(a) % 5), Ring::ALL[usize::from(a) % 3]);
        let access = Access {
            gfn,
            offset: u16::from(b) << 5,
            gla: (c & 8 != 0).then_some(Gla(u64::from(b) << 12)),
            rights: Rights::from_bits(c),
            source: if c & 16 == 0 { AccessSource::Instruction } else { AccessSource::PageWalk },
            rip: 0,
        };
        let access_type = AccessType::from_number(c % 10).unwrap();
        let kind = CpuEventKind::ALL[usize::from(b) % CpuEventKind::ALL.len()];
        let control = match operation {
            0..60 => return self.step(Input::Access { vcpu, access }),
            60..75 => return self.step(Input::Foreign { access }),
            75..105 => return self.step(Input::Kick { ring }),
            105..140 => return self.consume(ring, c),
            140..160 => return self.scribble(ring, b, c),
            160..166 => return self.enable(ring, LAYOUTS[usize::from(b) % 3], u32::from(c) & 3),
            166..172 => {
                let event = CpuEvent { kind, value: u64::from(c), old: u64::from(a), number: 1, rip: Gla(7), gfn };
                return self.step(Input::CpuEvent { vcpu, event });
            }
            172..178 => return self.step(Input::Balloon { vcpu, gfn }),
            178..180 => return self.step(Input::Abandon { vcpu }),
            180..182 => return self.step(Input::Unpopulated { first: gfn, count: u64::from(c) }),
            182..186 => return self.step(Input::FillFailed { gfn }),
            186..190 => return self.step(Input::ConsumerLost { ring }),
            190 => return self.step(Input::Destroy),
            191..195 => Control::Disable { ring, drain: c & 1 != 0 },
            195..197 => Control::Resume { ring },
            197..200 => Control::SetNoConsumer { ring, policy: POLICIES[usize::from(c) % 3] },
            200..206 => Control::SetAccess { first: gfn, count: u64::from(a), access: access_type },
            206..207 => Control::GetAccess { gfn },
            207..209 => Control::SetDefaultAccess { access: access_type },
            209..210 => Control::SetAccessRequired { required: c & 1 != 0 },
            210..218 => Control::Nominate { gfn },
            218..226 => Control::Evict { gfn },
            226..234 => Control::Prep { gfn, buffer: c & 1 != 0 },
            234..236 => Control::Drop { gfn },
            236 => Control::Populate { gfn },
            237..240 => Control::SetBudget { frames: u64::from(c) },
            240..243 => {
                let mode = [MonitorMode::Disabled, MonitorMode::Async, MonitorMode::Sync][usize::from(c) % 3];
                Control::Monitor { kind, mode, on_change_only: a & 1 != 0 }
            }
            243..245 => of_vcpu(vcpu, c),
            245..247 => Control::Pin { gfn },
            247..249 => Control::Unpin { gfn },
            249..252 => Control::NominateShare { gfn },
            252..255 => of_views(vcpu, gfn, access_type, c),
            255 => Control::Share {
                source: gfn,
                source_handle: u64::from(a),
                client: Gfn(u64::from(c) % FRAMES),
                client_handle: u64::from(a) + 1,
            },
        };
        self.step(Input::Control(control));
    }

    /// The consumer takes what is there and answers it: honestly, or with one field changed.
    fn consume(&mut self, ring: Ring, how: u8) {
        let Some(back) = &mut self.backs[ring.index()] else { return };
        // A page that was written at random may offer more requests than it has slots.
        for _ in 0..64 {
            let Ok(Some(request)) = back.take() else { break };
            let mut response = request.answer();
            match how % 8 {
                0 => response.vcpu ^= u32::from(how),
                1 => response.flags.0 ^= 1 << (how >> 3),
                2 => response.about = About::Other(response.subject() ^ u64::from(how >> 3)),
                3 => response.about = About::Other(response.subject()),
                _ => {}
            }
            back.answer(&response);
        }
    }

    /// Somebody writes an index or a slot's word.
    fn scribble(&mut self, ring: Ring, at: u8, value: u8) {
        let Some(back) = &self.backs[ring.index()] else { return };
        match at {
            0..16 => back.page().write_header(usize::from(at), u32::from(value) << (value & 24)),
            16..48 => {
                let answered = back.page().load(Index::RspProd, Ordering::Relaxed);
                back.page().store(Index::RspProd, answered.wrapping_add(u32::from(value & 3)), Ordering::Release);
            }
            _ => back.page().write_word(usize::from(at), u64::from(value) << (value & 56)),
        }
    }
}

#[test]
fn no_operations_and_no_page_contents_break_the_engine_or_its_replay() {
    // Enable all three; watch; touch, answer, kick; page out and in; share; lose a consumer and take over.
    let seeds: Vec<Vec<u8>> = vec![
        vec![
            160, 0, 1, 0, 160, 1, 1, 0, 160, 2, 1, 0, 200, 16, 0, 1, 0, 0, 1, 3, 105, 1, 0, 7, 75, 1, 0, 0, 0, 0, 1, 3,
        ],
        vec![
            160, 0, 1, 2, 210, 0, 3, 0, 218, 0, 3, 0, 0, 1, 3, 1, 60, 0, 3, 1, 226, 0, 3, 1, 105, 0, 0, 7, 75, 0, 0, 0,
        ],
        vec![
            160, 1, 2, 1, 240, 1, 0, 2, 166, 0, 0, 9, 166, 1, 0, 9, 105, 1, 0, 7, 75, 1, 0, 0, 186, 1, 0, 0, 160, 1, 0,
            1,
        ],
        vec![
            160, 2, 1, 0, 237, 0, 0, 14, 249, 0, 2, 0, 249, 0, 3, 0, 252, 1, 2, 3, 0, 0, 2, 2, 105, 2, 0, 7, 75, 2, 0,
            0,
        ],
        vec![
            160, 1, 0, 0, 200, 16, 0, 0, 0, 0, 1, 1, 140, 1, 20, 1, 75, 1, 0, 0, 191, 1, 0, 0, 160, 1, 0, 0, 190, 0, 0,
            0,
        ],
    ];
    Target::new("operations and pages", seeds, 8_000).run(|bytes| {
        let mut file = Vec::new();
        let writer = Writer::new(&mut file, &header()).unwrap();
        let domain = Domain::new(header().config).unwrap();
        let mut run =
            Run { domain, backs: [None, None, None], effects: Effects::default(), writer, text: String::new() };
        for four in bytes[..bytes.len().min(1024)].chunks_exact(4) {
            run.four([four[0], four[1], four[2], four[3]]);
        }
        let Run { domain, writer, text, .. } = { run };
        writer.finish().unwrap();
        let mut fresh = Domain::new(header().config).unwrap();
        replay(Reader::new(file.as_slice()).unwrap(), &mut fresh, |_, _| ())
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(fresh.state(), domain.state());
        text.chars().take(64).collect()
    });
}

/// Puts the checksums of all frames right, so that what stands in them is looked at.
fn mend(bytes: &mut [u8]) {
    let mut at = 12;
    while at + 8 < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        let Some(end) = (at + 8).checked_add(length).filter(|end| *end <= bytes.len()) else { break };
        let sum = crc32fast::hash(&bytes[at + 4..end]);
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}

#[test]
fn traces_of_any_content_are_read_and_replayed_without_a_panic() {
    let seeds = [3_u8, 77, 200]
        .map(|salt| {
            let mut file = Vec::new();
            let writer = Writer::new(&mut file, &header()).unwrap();
            let domain = Domain::new(header().config).unwrap();
            let (backs, effects, text) = ([None, None, None], Effects::default(), String::new());
            let mut run = Run { domain, backs, effects, writer, text };
            (0..3).for_each(|ring| run.four([160, ring, 1, 0]));
            run.four([200, 16, 0, 1]);
            let mut random = Random(u64::from(salt));
            (0..40).for_each(|_| run.four((random.next() as u32).to_le_bytes()));
            drop(run);
            file
        })
        .to_vec();
    Target::new("traces", seeds, 20_000).run(|bytes| {
        let mut bytes = bytes.to_vec();
        mend(&mut bytes);
        let reader = match Reader::new(bytes.as_slice()) {
            Ok(reader) => reader,
            Err(end) => return end.to_string(),
        };
        let config = reader.header().config.clone();
        let small = config.ram.iter().all(|(first, count)| first.0 < 4096 && *count < 4096);
        if !small {
            return "a large domain".to_owned();
        }
        let (Ok(mut replayed), Ok(mut driven)) = (Domain::new(config.clone()), Domain::new(config)) else {
            return "no such domain".to_owned();
        };
        // The replay ends at the first difference; the inputs, whatever they are, must do no harm either.
        let mut effects = Effects::default();
        for step in Reader::new(bytes.as_slice()).unwrap().map_while(Result::ok) {
            effects.clear();
            let _ = driven.apply(&step.input, With::NOTHING, &mut effects);
            driven.check_invariants().unwrap();
        }
        match replay(reader, &mut replayed, |_, _| ()) {
            Ok(summary) => summary.end.to_string(),
            Err(failure) => failure.to_string(),
        }
    });
}
