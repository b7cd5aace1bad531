//! Traces: what is recorded replays, and what is damaged says so.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use mem_event::trace::{self, Context, Engine, Failure, Header, Reader, Step, Writer, replay};
use mem_event::{
    Access, AccessSource, Back, Control, DomainConfig, Effect, Effects, Errno, Event, Flags, Front, Gfn, Input, Layout,
    Outcome, Request, Rights, Ring, RingPage, VcpuId, WaitReason, With,
};
use std::io::Write;

/// The smallest engine that has a ring: every access is an event.
#[derive(Default)]
struct Tiny {
    front: Option<Front>,
    forgets_to_wake: bool,
}

impl Engine for Tiny {
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome {
        match (input, &mut self.front) {
            (Input::Control(Control::Enable { .. }), Some(_)) => Outcome::Refused(Errno::EBUSY, "in use".into()),
            (Input::Control(Control::Enable { ring, layout, slots }), none) => {
                let page = with.page.unwrap().clone();
                *none = Some(Front::new(page, *ring, *layout, *slots).unwrap());
                Outcome::Proceed
            }
            (Input::Access { vcpu, access }, Some(front)) => {
                let Access { gfn, offset, gla, rights, .. } = *access;
                let event = Event::Violation { gfn, offset, gla, rights, in_gpt: false };
                let request = Request { flags: Flags::VCPU_PAUSED, vcpu: *vcpu, event, view: mem_event::ViewId::HOST };
                let slot = front.put(&request);
                effects.list.push(Effect::Requested { ring: Ring::Access, slot, request });
                effects.list.push(Effect::Notify(Ring::Access));
                Outcome::Wait(WaitReason::Answer(Ring::Access))
            }
            (Input::Kick { ring }, Some(front)) => {
                if let Err(broken) = front.poll(None, &mut effects.taken) {
                    effects.list.push(Effect::Broken(*ring, broken.to_string()));
                }
                while let Some((slot, response)) = front.take(&mut effects.taken) {
                    effects.list.push(Effect::Answered { ring: *ring, slot, response });
                    if !self.forgets_to_wake || response.subject() != 5 {
                        effects.list.push(Effect::Wake(VcpuId(response.vcpu)));
                    }
                }
                Outcome::Proceed
            }
            _ => Outcome::Refused(Errno::ENOSYS, "not here".into()),
        }
    }
}

fn header() -> Header {
    Header {
        guest: "none".into(),
        guest_hash: "00".into(),
        qemu: "10.0.2".into(),
        plugin: "0.1.0".into(),
        scenario: "name = \"tiny\"\n".into(),
        config: DomainConfig::new(2, vec![(Gfn(0), 64)]),
        facts: vec![("host".into(), "here".into())],
        symbols: vec![trace::Symbol { gpa: 0x2000, size: 16, name: "WATCHED".into() }],
    }
}

/// Runs the tiny engine with a consumer that answers, and at last lies; records all of it.
fn record(layout: Layout, rounds: u64, file: impl Write) -> Vec<Step> {
    let mut engine = Tiny::default();
    let mut writer = Writer::new(file, &header()).unwrap();
    let mut steps = Vec::new();
    let page = RingPage::heap();
    let mut step = |engine: &mut Tiny, input: Input| {
        let mut effects = Effects::default();
        let outcome = engine.apply(&input, With::page(&page), &mut effects);
        let code: &[u8] = if steps.len() % 2 == 0 { &[0x90] } else { &[] };
        writer.record(Context { time: 1000 * steps.len() as u64, code, connection: 3 }, &input, &outcome, &effects);
        if steps.len() % 4 == 3 {
            writer.flush();
        }
        steps.push(Step {
            time: 1000 * steps.len() as u64,
            code: code.to_vec(),
            connection: 3,
            input,
            outcome,
            effects,
        });
    };
    let ring = Ring::Access;
    let enable = || Input::Control(Control::Enable { ring, layout, slots: 4 });
    step(&mut engine, enable());
    step(&mut engine, enable());
    let mut back = Back::init(page.clone(), ring, layout, 4).unwrap();
    for round in 0..rounds {
        for vcpu in 0..2 {
            let (gfn, vcpu) = (Gfn(round % 7), VcpuId(vcpu));
            let source = AccessSource::Instruction;
            let access = Access { gfn, offset: 8, gla: None, rights: Rights::W, source, rip: 0x10_0000 };
            step(&mut engine, Input::Access { vcpu, access });
        }
        while let Some(request) = back.take().unwrap() {
            back.answer(&request.answer());
        }
        step(&mut engine, Input::Kick { ring });
    }
    back.set_rsp_prod(u32::try_from(2 * rounds).unwrap() + 9);
    step(&mut engine, Input::Kick { ring });
    writer.finish().unwrap();
    steps
}

fn read(bytes: &[u8]) -> (Vec<Step>, trace::End) {
    let mut steps = Vec::new();
    let reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(end) => return (steps, end),
    };
    for step in reader {
        match step {
            Ok(step) => steps.push(step),
            Err(end) => return (steps, end),
        }
    }
    panic!("a reader ended without saying why");
}

#[test]
fn what_is_recorded_reads_back() {
    for layout in [Layout::Flags16, Layout::Flags32, Layout::VmEvent7] {
        let mut bytes = Vec::new();
        let steps = record(layout, 20, &mut bytes);
        assert_eq!(Reader::new(bytes.as_slice()).unwrap().header(), &header());
        let (got, end) = read(&bytes);
        assert_eq!(got, steps);
        assert_eq!(
            end,
            trace::End { offset: bytes.len() as u64, steps: steps.len() as u64, why: trace::Why::Finished }
        );
    }
}

#[test]
fn a_recorded_run_replays_without_its_consumer() {
    for layout in [Layout::Flags16, Layout::Flags32, Layout::VmEvent7] {
        let mut bytes = Vec::new();
        let steps = record(layout, 50, &mut bytes);
        let mut seen = 0;
        let reader = Reader::new(bytes.as_slice()).unwrap();
        let summary = replay(reader, &mut Tiny::default(), |number, step| {
            seen += 1;
            assert_eq!((number, step), (seen, &steps[seen as usize - 1]));
        })
        .unwrap();
        assert_eq!((summary.steps, summary.end.why), (steps.len() as u64, trace::Why::Finished));
        assert_eq!(seen, summary.steps);
    }
}

#[test]
fn the_first_step_that_comes_out_otherwise_is_named() {
    let mut bytes = Vec::new();
    let steps = record(Layout::Flags32, 20, &mut bytes);
    let mut broken = Tiny { forgets_to_wake: true, ..Tiny::default() };
    let failure = replay(Reader::new(bytes.as_slice()).unwrap(), &mut broken, |_, _| ()).unwrap_err();
    let Failure::Difference(difference) = &failure else { panic!("{failure}") };
    assert_eq!(difference.step, 2 + 5 * 3 + 3, "the kick that answers for frame 5");
    assert_eq!(difference.recorded, steps[difference.step as usize - 1]);
    let text = failure.to_string();
    assert!(text.contains("step 20: Kick { ring: Access }"), "{text}");
    assert!(
        text.contains("recorded effect 2: Wake(VcpuId(0))") && text.contains("effect 2 now:      Answered"),
        "{text}"
    );
}

#[test]
fn a_trace_that_takes_from_no_ring_is_impossible_and_no_panic() {
    let mut bytes = Vec::new();
    let steps = record(Layout::Flags32, 1, &mut bytes);
    let mut file = Vec::new();
    let mut cut = Writer::new(&mut file, &header()).unwrap();
    cut.record(Context::default(), &steps[4].input, &steps[4].outcome, &steps[4].effects);
    cut.finish().unwrap();
    let failure = replay(Reader::new(file.as_slice()).unwrap(), &mut Tiny::default(), |_, _| ()).unwrap_err();
    assert!(matches!(failure, Failure::Impossible { step: 1, .. }), "{failure}");
    assert!(failure.to_string().starts_with("step 1: something was taken from the access ring"), "{failure}");
}

#[test]
fn a_trace_cut_anywhere_shows_the_steps_before_the_cut_and_where_it_ends() {
    let mut bytes = Vec::new();
    let steps = record(Layout::Flags32, 6, &mut bytes);
    let mut boundary = 0;
    for length in 0..bytes.len() {
        let (got, end) = read(&bytes[..length]);
        assert_eq!(got, steps[..got.len()]);
        assert_eq!(end.steps, got.len() as u64);
        match end.why {
            trace::Why::Stopped => boundary = length as u64,
            trace::Why::Cut(more) => assert_eq!(end.offset + more, length as u64),
            trace::Why::NoTrace => assert_eq!(length, 0),
            ref other => panic!("cut at {length}: {other:?}"),
        }
        if length > 12 {
            assert!(end.offset == boundary || boundary == 0, "cut at {length}: {end}");
            assert!(end.is_whole());
        }
    }
    assert_eq!(read(&bytes[..bytes.len() - 1]).0, steps, "all that is lost is the end mark");
}

#[test]
fn a_flipped_bit_anywhere_is_an_error_and_never_another_step() {
    let mut bytes = Vec::new();
    let steps = record(Layout::Flags16, 6, &mut bytes);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let (got, end) = read(&bytes);
            assert_eq!(got, steps[..got.len()], "byte {at}");
            assert!(got.len() < steps.len() || end.why != trace::Why::Finished, "byte {at}: {end}");
            assert!(end.offset <= at as u64, "byte {at}: {end}");
            assert!(!end.to_string().is_empty());
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn a_block_that_claims_much_allocates_little() {
    let mut bytes = Vec::new();
    record(Layout::Flags32, 1, &mut bytes);
    let second = 12 + 8 + u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    bytes[second + 4..second + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let (steps, end) = read(&bytes);
    assert!(steps.is_empty());
    assert_eq!((end.offset, end.why), (second as u64, trace::Why::Length(u32::MAX)));
    let rest = (bytes.len() - second) as u64;
    bytes[second + 4..second + 8].copy_from_slice(&(60_u32 << 20).to_le_bytes());
    assert_eq!(read(&bytes).1.why, trace::Why::Cut(rest));
}

#[test]
fn another_version_and_another_file_are_refused_with_a_sentence() {
    let mut bytes = Vec::new();
    record(Layout::Flags32, 1, &mut bytes);
    bytes[8] = 1;
    let text = read(&bytes).1.to_string();
    let reads = trace::VERSION;
    assert!(
        text.starts_with(&format!("a trace of format version 1; this program reads {reads}: record it again")),
        "{text}"
    );
    assert_eq!(read(b"\x7fELF, not a trace").1.why, trace::Why::NoTrace);
    assert_eq!(read(b"").1.why, trace::Why::NoTrace);
    let missing = Reader::open("/nonexistent/trace").unwrap_err();
    assert!(matches!(missing.why, trace::Why::Unreadable(_)), "{missing}");
}

#[test]
fn a_recorder_that_cannot_write_goes_quiet() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(std::io::Error::other("no space left"));
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(Writer::new(Full(10), &header()).is_err(), "a trace that cannot begin says so at once");
    let mut writer = Writer::new(Full(1000), &header()).unwrap();
    let effects = Effects { list: vec![Effect::Crash("x".repeat(2000))], taken: Vec::new() };
    assert_eq!(writer.failed(), None);
    writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &effects);
    writer.flush();
    assert_eq!(writer.failed(), Some("no space left"));
    writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &effects);
    assert_eq!(writer.steps(), 1);
    assert_eq!(writer.finish(), Err("no space left".into()));
}

#[test]
fn a_step_too_long_for_a_block_ends_the_recording_and_keeps_what_was_there() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &Effects::default());
    let long = Effects { list: vec![Effect::Crash("x".repeat(2 << 20))], taken: Vec::new() };
    writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &long);
    assert!(writer.failed().is_some());
    drop(writer);
    let (steps, end) = read(&file);
    assert_eq!((steps.len(), end.why), (1, trace::Why::Stopped));
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header()).unwrap();
    writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &long);
    drop(writer);
    assert_eq!(read(&file).1.why, trace::Why::Stopped, "a block without a step is not written");
}

#[test]
fn a_trace_on_disk_reads_back_and_says_where_it_is() {
    let path = std::env::temp_dir().join(format!("mem-event-trace-{}", std::process::id()));
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &Effects::default());
    assert!(format!("{writer:?}").contains("steps: 1"));
    writer.finish().unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    let mut reader = Reader::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let begin = reader.offset();
    assert_eq!(reader.next().unwrap().unwrap().input, Input::Destroy);
    assert!(begin < reader.offset() && format!("{reader:?}").contains("steps: 1"));
    let end = reader.next().unwrap().unwrap_err();
    assert_eq!(end.to_string(), format!("1 steps, ended in order at byte {length}"));
    assert!(reader.next().is_none(), "the end comes once");
    assert!(Writer::create("/nonexistent/folder/trace", &header()).is_err());
}

#[test]
fn blocks_in_the_wrong_place_are_damage() {
    let parts = |steps: u64| {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        (0..steps)
            .for_each(|_| writer.record(Context::default(), &Input::Destroy, &Outcome::Crashed, &Effects::default()));
        writer.finish().unwrap();
        bytes
    };
    let block =
        |bytes: &[u8], at: usize| at + 8 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
    let (none, one) = (parts(0), parts(1));
    let first = block(&one, 12);
    let says = |bytes: &[u8], part: &str| {
        let end = read(bytes).1;
        assert!(!end.is_whole() && end.to_string().contains(part), "{end}");
    };
    says(&[&one[..12], &one[first..]].concat(), "a block of kind 1, where kind 0 is due");
    says(&[&one[..first], &one[12..]].concat(), "a block of kind 0 among the steps");
    says(&[&none[..], &one[first..]].concat(), "bytes after the end mark");
    says(&[&one[..block(&one, first)], &none[first..]].concat(), "the index counts 0 steps");
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    struct Broken(Vec<u8>, usize, bool);
    impl std::io::Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let left = &self.0[self.1..];
            if left.is_empty() {
                return Err(std::io::Error::other("the disk is gone"));
            }
            let size = left.len().min(buffer.len()).min(7);
            buffer[..size].copy_from_slice(&left[..size]);
            self.1 += size;
            Ok(size)
        }
    }
    let mut bytes = Vec::new();
    let steps = record(Layout::Flags32, 3, &mut bytes);
    bytes.truncate(bytes.len() - 3);
    let got: Vec<_> = Reader::new(Broken(bytes, 0, false)).unwrap().collect();
    let end = got.last().unwrap().as_ref().unwrap_err();
    assert_eq!((got.len(), end.steps), (steps.len() + 1, steps.len() as u64));
    assert!(end.to_string().contains("the disk is gone"), "{end}");
}
