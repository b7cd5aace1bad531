//! What stands between the steps of a trace: read in its place, passed over by a replay, found from any step, seen while the file grows.
#![allow(clippy::unwrap_used, reason = "a test may stop")]

use mem_event::trace::remark::{Answer, Asked, Payload, Point};
use mem_event::trace::{Context, Follower, Header, Reader, Record, Remark, Tape, Why, Writer, replay};
use mem_event::wire::vm_event::Registers;
use mem_event::{Access, AccessSource, Domain, DomainConfig, Effects, Errno, Gfn, Input, Rights, VcpuId, With};
use mem_event::{Control, message};
use std::io::{Cursor, Write};

fn header() -> Header {
    Header::of("tiny", DomainConfig::new(1, vec![(Gfn(0), 64)]))
}

fn note(number: u64) -> Remark {
    Remark::Note { connection: 1, text: format!("note {number}") }
}

/// A recording that makes steps and remarks as it is told.
struct Recorder<W: Write> {
    engine: Domain,
    writer: Writer<W>,
    time: u64,
}

impl<W: Write> Recorder<W> {
    fn new(file: W) -> Recorder<W> {
        let mut engine = Domain::new(header().config).unwrap();
        engine.keep_record(true);
        Recorder { engine, writer: Writer::new(file, &header()).unwrap(), time: 0 }
    }

    fn step(&mut self) {
        self.time += 10;
        let (gfn, source) = (Gfn(self.time / 10 % 64), AccessSource::Instruction);
        let access = Access { gfn, offset: 0, gla: None, rights: Rights::R, source, rip: 0 };
        let (input, mut effects) = (Input::Access { vcpu: VcpuId(0), access }, Effects::default());
        let outcome = self.engine.apply(&input, With::NOTHING, &mut effects);
        self.writer.record(Context { time: self.time, code: &[], connection: 0 }, &input, &outcome, &effects);
    }

    fn finish(self) {
        self.writer.finish().unwrap();
    }

    fn note(&mut self, number: u64) {
        self.time += 10;
        self.writer.remark(self.time, &note(number));
    }
}

/// Notes before the first step, between steps, at the ends of blocks, in blocks of their own, around a state, and after the last step.
/// Each note's number is how many steps come before it.
fn recorded() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes);
    recorder.note(0);
    recorder.writer.flush();
    recorder.note(0);
    recorder.step();
    recorder.note(1);
    recorder.step();
    recorder.note(2);
    recorder.writer.flush();
    recorder.note(2);
    recorder.writer.flush();
    let engine = std::mem::replace(&mut recorder.engine, Domain::new(header().config).unwrap());
    recorder.writer.keep(&engine);
    recorder.engine = engine;
    recorder.note(2);
    recorder.step();
    recorder.step();
    recorder.writer.flush();
    recorder.step();
    recorder.writer.flush();
    recorder.note(5);
    recorder.finish();
    bytes
}

const NOTES: [usize; 6] = [2, 1, 3, 0, 0, 1];

fn records(bytes: &[u8]) -> (Vec<Record>, Why) {
    let (mut reader, mut records) = (Reader::new(bytes).unwrap(), Vec::new());
    loop {
        match reader.record() {
            Ok(record) => records.push(record),
            Err(end) => return (records, end.why),
        }
    }
}

fn are_in_place(records: &[Record]) {
    let (mut steps, mut time, mut notes) = (0, 0, [0; 6]);
    for record in records {
        let now = match record {
            Record::Step(step) => {
                steps += 1;
                step.time
            }
            Record::Remark(remarked) => {
                assert_eq!(remarked.remark, note(steps));
                notes[usize::try_from(steps).unwrap()] += 1;
                remarked.time
            }
        };
        assert_eq!(now, time + 10, "after step {steps}");
        time = now;
    }
    assert_eq!((steps, notes), (5, NOTES));
}

#[test]
fn remarks_are_read_in_their_place_among_the_steps() {
    let (records, why) = records(&recorded());
    are_in_place(&records);
    assert_eq!(why, Why::Finished);
}

#[test]
fn a_replay_passes_over_remarks() {
    let bytes = recorded();
    let mut engine = Domain::new(header().config).unwrap();
    engine.keep_record(true);
    let summary = replay(Reader::new(bytes.as_slice()).unwrap(), &mut engine, |_, _| ()).unwrap();
    assert_eq!((summary.steps, summary.states, summary.end.why), (5, 1, Why::Finished));
    let steps: Vec<_> = Reader::new(bytes.as_slice()).unwrap().map_while(Result::ok).collect();
    assert_eq!(steps.len(), 5);
}

#[test]
fn the_remarks_after_any_step_are_found_with_and_without_an_index() {
    let whole = recorded();
    // Without the end mark and the index: every block is read.
    let index = Tape::new(Cursor::new(whole.clone())).unwrap();
    assert_eq!(index.end().why, Why::Finished);
    let tail: [u8; 8] = whole[whole.len() - 16..whole.len() - 8].try_into().unwrap();
    let cut = whole[..usize::try_from(u64::from_le_bytes(tail)).unwrap()].to_vec();
    for bytes in [whole, cut] {
        for after in [5, 0, 3, 2, 1, 4, 2, 5] {
            let mut tape = Tape::new(Cursor::new(bytes.clone())).unwrap();
            // From a fresh tape, and from one that stands elsewhere.
            for begin in [None, Some(1), Some(5)] {
                begin.map(|number| tape.step(number).unwrap());
                let found = tape.remarks(after).unwrap();
                assert_eq!(found.len(), NOTES[usize::try_from(after).unwrap()], "after {after}");
                assert!(found.iter().all(|remarked| remarked.remark == note(after)));
            }
            assert_eq!(tape.step(5).unwrap().time, 110);
        }
    }
}

#[test]
fn a_block_cut_anywhere_gives_what_came_before_it_and_never_another_remark() {
    let bytes = recorded();
    let (all, _) = records(&bytes);
    for length in 12..bytes.len() {
        let Ok(mut reader) = Reader::new(&bytes[..length]) else { continue };
        let mut got = Vec::new();
        while let Ok(record) = reader.record() {
            got.push(record);
        }
        assert!(all.starts_with(&got), "{length} bytes");
    }
}

#[test]
fn a_file_that_grows_is_followed_block_by_block_to_its_end() {
    let bytes = recorded();
    let path = std::env::temp_dir().join(format!("mem-event-remarks-{}", std::process::id()));
    std::fs::write(&path, []).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let (mut follower, mut got) = (None, Vec::new());
    for part in bytes.chunks(7) {
        file.write_all(part).unwrap();
        if follower.is_none() {
            follower = Follower::open(&path).ok();
        }
        if let Some(follower) = &mut follower {
            got.extend(std::iter::from_fn(|| follower.record()));
        }
    }
    std::fs::remove_file(&path).unwrap();
    are_in_place(&got);
    let follower = follower.unwrap();
    assert_eq!(follower.end().map(|end| &end.why), Some(&Why::Finished));
    assert_eq!(follower.steps(), 5);
}

#[test]
fn a_recording_at_its_limit_ends_in_order_and_says_so() {
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes);
    recorder.writer.limit(1000);
    for number in 0..1000 {
        recorder.step();
        recorder.note(number);
        recorder.writer.flush();
    }
    let failed = recorder.writer.failed().map(str::to_owned);
    assert_eq!(failed.as_deref(), Some("it may have 1000 bytes, its limit"));
    drop(recorder);
    let (records, why) = records(&bytes);
    assert!(records.len() > 2 && bytes.len() < 2000, "{} records, {} bytes", records.len(), bytes.len());
    assert_eq!(why, Why::Finished);
}

#[test]
fn a_call_is_kept_as_its_packet_has_it_and_of_a_frame_the_digest_alone() {
    let call = message::Call::WriteFrame { gfn: Gfn(7), offset: 8, bytes: vec![1, 2, 3] };
    let asked = Asked::of(&call);
    assert_eq!((asked.operation, asked.arguments.as_slice()), (6, &[7, 8][..]));
    assert_eq!(asked.payload, Payload { length: 3, hash: mem_event::digest(&[1, 2, 3]), bytes: None });
    assert_eq!(asked.call().unwrap().to_string(), call.to_string());
    for call in [
        message::Call::Note { text: "here".into() },
        message::Call::HandOver { text: "./pager".into() },
        message::Call::Ordered { text: "target 5".into() },
    ] {
        assert_eq!(Asked::of(&call).call(), Some(call));
    }
    let control = message::Call::Control(Control::Evict { gfn: Gfn(9) });
    assert_eq!(Asked::of(&control).call(), Some(control));
    let unknown = Asked { operation: 9999, arguments: Vec::new(), payload: Payload::default() };
    assert_eq!(unknown.call(), None);
}

#[test]
fn of_what_frames_hold_a_reply_keeps_the_bytes_only_if_that_is_wanted() {
    let read = message::Call::ReadFrame { gfn: Gfn(7), offset: 0, len: 16 };
    let bytes = vec![5; 16];
    let kept = |call: &message::Call, keep| match Answer::of(call, &message::Reply::Bytes(bytes.clone()), keep) {
        Answer::Bytes(payload) => {
            assert_eq!((payload.length, payload.hash), (16, mem_event::digest(&bytes)));
            payload.bytes
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(kept(&read, false), None);
    assert_eq!(kept(&read, true).as_ref(), Some(&bytes));
    assert_eq!(kept(&message::Call::Monitors, false).as_ref(), Some(&bytes));
    let refused = Answer::of(&read, &message::Reply::Refused(Errno::ENOENT, "gone".into()), false);
    assert_eq!(refused, Answer::Refused(Errno::ENOENT, "gone".into()));
}

#[test]
fn every_kind_of_remark_reads_back() {
    let (connection, vcpu) = (7, VcpuId(1));
    let all = [
        Remark::Came { connection, process: 1, user: 2, program: "pager".into() },
        Remark::Stopped { vcpu, at: Point::Number(3), arguments: [1, u64::MAX, 0] },
        Remark::Stopped { vcpu, at: Point::Place(mem_event::Gpa(0x1000)), arguments: [0; 3] },
        Remark::Released { vcpu, connection: Some(connection) },
        Remark::Released { vcpu, connection: None },
        Remark::Called {
            connection,
            call: Asked::of(&message::Call::Info),
            reply: Answer::of(&message::Call::Info, &message::Reply::Done([1, 0, 2, 0, 0]), false),
        },
        Remark::Content { gfn: Gfn(5), hash: u64::MAX, how: mem_event::trace::remark::Moment::Loaded },
        note(0),
        Remark::HandedOver { connection, consumer: "./pager".into() },
        Remark::Ordered { connection, order: "page-out 5 3".into() },
        Remark::Registers {
            vcpu,
            registers: Box::new(Registers { rip: 5, shadow_gs: u64::MAX, ..Registers::default() }),
        },
        Remark::Went { connection },
    ];
    let mut bytes = Vec::new();
    let mut recorder = Recorder::new(&mut bytes);
    all.iter().for_each(|remark| recorder.writer.remark(0, remark));
    recorder.finish();
    let (records, why) = records(&bytes);
    let got: Vec<_> = records
        .into_iter()
        .map(|record| match record {
            Record::Remark(remarked) => remarked.remark,
            Record::Step(step) => panic!("{step:?}"),
        })
        .collect();
    assert_eq!((got.as_slice(), why), (&all[..], Why::Finished));
}
