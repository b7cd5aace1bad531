//! Steps of any content: what is written is what is read, whatever stood before it in its block.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use bincode::Decode;
use mem_event::registers::Registers;
use mem_event::trace::{Context, Header, Reader, Record, Remark, Remarked, Step, Tape, Writer};
use mem_event::{
    Access, AccessSource, CpuEvent, CpuEventKind, DomainConfig, Effect, Effects, Event, Flags, Gfn, Gla, Input, Layout,
    Outcome, Request, Response, Rights, Ring, VcpuId, ViewId, WaitReason, wire,
};
use mem_event_fuzz::Random;
use std::io::Cursor;

const LAYOUTS: [Layout; 3] = [Layout::Flags16, Layout::Flags32, Layout::VmEvent7];

fn header() -> Header {
    Header::of("steps", DomainConfig::new(2, vec![(Gfn(0), 64)]))
}

/// Numbers as they come: mostly near one another, now and then any.
struct Numbers(Random);

impl Numbers {
    fn any(&mut self) -> u64 {
        match self.0.below(8) {
            0 => self.0.next(),
            1 => u64::MAX - self.0.next() % 3,
            2 => 0,
            _ => 0xffff_8880_0010_0000 + self.0.next() % 0x2000,
        }
    }

    fn flip(&mut self) -> bool {
        self.0.below(2) == 0
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.below(of.len())]
    }

    fn vcpu(&mut self) -> VcpuId {
        VcpuId(self.one(&[0, 0, 1, 2, 4095, 4096, 70_000]))
    }

    /// A value of a type with any of its variants.
    fn value<T: Decode<()>>(&mut self) -> T {
        loop {
            let mut bytes: Vec<u8> = (0..64).map(|_| (self.0.next() % 7) as u8).collect();
            bytes[0] = self.0.byte() % 24;
            bytes[1] = self.0.byte() % 40;
            if let Ok((value, _)) = bincode::decode_from_slice(&bytes, bincode::config::standard()) {
                return value;
            }
        }
    }

    fn access(&mut self) -> Access {
        let gfn = Gfn(self.one(&[0x500, 0x501, 0x502, 1 << 40]));
        let gla = match self.0.below(4) {
            0 => None,
            1 => Some(Gla(self.any())),
            _ => Some(Gla(0xffff_8880_0000_0000 + (gfn.0 << 12))),
        };
        let source = self.one(&[AccessSource::Instruction, AccessSource::PageWalk, AccessSource::Processor]);
        let offset = self.one(&[0, 8, 0xfff, u16::MAX]);
        Access { gfn, offset, gla, rights: Rights::from_bits(self.0.byte()), source, rip: self.any() }
    }

    fn event(&mut self) -> CpuEvent {
        let kind = self.one(&CpuEventKind::ALL);
        let number = self.one(&[0, 0xc000_0080, u32::MAX]);
        let (value, old) = (self.any(), self.any());
        CpuEvent { kind, value, old, number, rip: Gla(self.any()), gfn: Gfn(self.any() >> 12) }
    }

    fn input(&mut self) -> Input {
        match self.0.below(5) {
            0 | 1 => Input::Access { vcpu: self.vcpu(), access: self.access() },
            2 => Input::Kick { ring: self.one(&Ring::ALL) },
            3 => Input::CpuEvent { vcpu: self.vcpu(), event: self.event() },
            _ => self.value(),
        }
    }

    /// What was taken, and the effects that tell of it: echoes, other answers, bytes that are no slots.
    fn taken(&mut self, asked: &[(Ring, Request)], effects: &mut Effects) {
        for _ in 0..self.0.below(4) {
            let layout = self.one(&LAYOUTS);
            let (ring, request) = match asked.last() {
                Some(_) if self.0.below(3) > 0 => self.one(asked),
                _ => (self.one(&Ring::ALL), self.value()),
            };
            let mut response: Response = request.answer();
            if self.0.below(3) == 0 {
                response.flags = Flags(self.any() as u32);
            }
            let mut slot = wire::response_bytes(layout, ring, &response);
            if self.0.below(4) == 0 {
                let at = self.0.below(slot.len());
                slot[at] = self.0.byte();
            }
            let length = u16::try_from(slot.len()).unwrap().to_le_bytes();
            effects.taken.extend([ring as u8, 0, length[0], length[1]]);
            effects.taken.extend(&slot);
            let read = self.one(&[layout, Layout::Flags16]);
            let response = wire::read_response(read, ring, &slot);
            let ring = if self.0.below(8) == 0 { Ring::Sharing } else { ring };
            effects.list.push(Effect::Answered { ring, slot: self.0.below(64) as u32, response });
        }
        if self.0.below(16) == 0 {
            effects.taken.extend([2, 1, 4, 0, 9, 9, 9, 9]);
        }
        if self.0.below(16) == 0 {
            effects.taken.push(7);
        }
    }

    fn effects(&mut self, input: &Input, asked: &mut Vec<(Ring, Request)>) -> Effects {
        let mut effects = Effects::default();
        if self.flip() {
            self.taken(asked, &mut effects);
        }
        for _ in 0..self.one(&[0, 1, 2, 3, 3, 80]) {
            let gfn = Gfn(self.any() >> 12);
            let effect = match self.0.below(8) {
                0 | 1 => {
                    let (ring, request) = self.request(input);
                    asked.push((ring, request));
                    Effect::Requested { ring, slot: self.0.below(300) as u32, request }
                }
                2 => Effect::Notify(self.one(&Ring::ALL)),
                3 => Effect::Wake(self.vcpu()),
                4 => of_frame(self.0.byte() % 5, gfn),
                5 => Effect::Tighten { first: gfn, count: self.any() },
                _ => self.value(),
            };
            effects.list.push(effect);
        }
        effects
    }

    /// The request of a forbidden access, or any.
    fn request(&mut self, input: &Input) -> (Ring, Request) {
        match input {
            Input::Access { vcpu, access } if self.0.below(4) > 0 => {
                let Access { gfn, offset, gla, rights, source, .. } = *access;
                let in_gpt = (source == AccessSource::PageWalk) ^ (self.0.below(8) == 0);
                let event = Event::Violation { gfn, offset, gla, rights, in_gpt };
                (Ring::Access, Request { flags: Flags::VCPU_PAUSED, vcpu: *vcpu, event, view: ViewId::HOST })
            }
            _ => (self.one(&Ring::ALL), self.value()),
        }
    }

    fn step(&mut self, time: u64, asked: &mut Vec<(Ring, Request)>) -> Step {
        let input = self.input();
        let effects = self.effects(&input, asked);
        let outcome = match self.0.below(4) {
            0 => self.value(),
            1 => Outcome::Wait(WaitReason::Answer(self.one(&Ring::ALL))),
            _ => Outcome::Proceed,
        };
        let code = (0..self.one(&[0_u8, 0, 2, 16, 16, 17])).map(|at| at ^ 0x48).collect();
        let connection = self.one(&[0, 0, 1, 200, u32::MAX]);
        Step { time, code, connection, input, outcome, effects }
    }

    fn remark(&mut self) -> Remark {
        if self.flip() {
            return self.value();
        }
        let mut registers = Registers::default();
        registers.general[self.0.below(16)] = self.any();
        (registers.rip, registers.gdtr_limit) = (self.any(), 127);
        registers.segments[0].base = self.one(&[0, 16, 1 << 40]);
        Remark::Registers { vcpu: self.vcpu(), registers: Box::new(registers) }
    }
}

fn of_frame(which: u8, gfn: Gfn) -> Effect {
    match which {
        0 => Effect::Map(gfn),
        1 => Effect::Unmap(gfn),
        2 => Effect::Punch(gfn),
        3 => Effect::Fill(gfn),
        _ => Effect::Zero(gfn),
    }
}

/// Random records, and a trace of them with blocks of all lengths.
fn recorded(seed: u64) -> (Vec<Record>, Vec<u8>) {
    let (mut numbers, mut records, mut bytes) = (Numbers(Random(seed)), Vec::new(), Vec::new());
    let mut writer = Writer::new(&mut bytes, &header()).unwrap();
    let (mut time, mut asked) = (0, Vec::new());
    for _ in 0..200 {
        time += numbers.one(&[0, 1, 300, 1 << 33]);
        if numbers.0.below(5) == 0 {
            let remark = numbers.remark();
            writer.remark(time, &remark);
            records.push(Record::Remark(Remarked { time, remark }));
        } else {
            let step = numbers.step(time, &mut asked);
            let context = Context { time, code: &step.code, connection: step.connection };
            writer.record(context, &step.input, &step.outcome, &step.effects);
            records.push(Record::Step(step));
        }
        if numbers.0.below(40) == 0 {
            writer.flush();
        }
    }
    writer.finish().unwrap();
    (records, bytes)
}

#[test]
fn steps_and_remarks_of_any_content_read_back_as_they_were_written() {
    for seed in 0..300 {
        let (records, bytes) = recorded(seed);
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        for (at, record) in records.iter().enumerate() {
            let read = reader.record().unwrap_or_else(|end| panic!("seed {seed}, record {at}: {end}: {record:?}"));
            assert_eq!(read, *record, "seed {seed}, record {at}");
        }
        assert!(reader.record().is_err(), "seed {seed}: a record too many");
    }
}

#[test]
fn any_step_of_any_content_is_found() {
    for seed in 0..40 {
        let (records, bytes) = recorded(seed);
        let mut steps: Vec<(u64, Step)> = Vec::new();
        for record in records {
            if let Record::Step(step) = record {
                steps.push((steps.len() as u64 + 1, step));
            }
        }
        let mut tape = Tape::new(Cursor::new(bytes)).unwrap();
        let mut random = Random(seed);
        for _ in 0..steps.len() {
            let (number, step) = &steps[random.below(steps.len())];
            assert_eq!(tape.step(*number).unwrap(), step, "seed {seed}, step {number}");
        }
    }
}
