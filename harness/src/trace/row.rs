//! A step as words: what a table's row, a filter and an export know of it.

use crate::guest::symbols::Symbols;
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use mem_event::trace::Step;
use mem_event::{
    Access, Control, Effect, Flags, Gfn, Gla, Gpa, Input, Outcome, Request, Rights, Ring, VcpuId, WaitReason,
};
use serde::{Serialize, Serializer};

/// One step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its number, from 1.
    pub step: u64,
    /// Nanoseconds from the beginning of the recording.
    pub time: u64,
    /// What the engine was told, in one word: `access`, `kick`, `set-access`, `cr3`, …
    pub kind: String,
    /// The vCPU, where it is about one.
    pub vcpu: Option<u32>,
    /// The ring, where it is about one.
    pub ring: Option<String>,
    /// The frame (of several the first), where it is about one.
    pub gfn: Option<u64>,
    /// The offset in the frame; of accesses.
    pub offset: Option<u16>,
    /// The symbol there.
    pub place: Option<String>,
    /// What was wanted; of accesses.
    pub rights: Option<String>,
    /// The instruction pointer, 0 where it is not known. In JSON it is text, or null: JavaScript's numbers do not hold 64 bits.
    #[serde(serialize_with = "address")]
    pub rip: u64,
    /// The symbol there, where code lies at its physical address.
    pub at: Option<String>,
    /// The instruction.
    pub code: Option<String>,
    /// What the engine answered.
    pub outcome: String,
    /// What had to happen.
    pub effects: Vec<String>,
    /// The connection whose call it is, 0 for none.
    pub connection: u32,
    /// Of a remark, what it says.
    pub remark: Option<String>,
}

impl Row {
    /// The row of a step.
    #[must_use]
    pub fn new(number: u64, step: &Step, symbols: &Symbols) -> Row {
        let about = About::of(&step.input);
        let rip = about.rip;
        let place = about.gfn.and_then(|gfn| symbols.name(Gpa(gfn.gpa().0 + u64::from(about.offset.unwrap_or(0)))));
        Row {
            step: number,
            time: step.time,
            kind: kind(&step.input),
            vcpu: about.vcpu,
            ring: about.ring.map(|ring| ring.to_string()),
            gfn: about.gfn.map(|gfn| gfn.0),
            offset: about.offset,
            place,
            rights: about.rights.map(|rights| rights.to_string()),
            rip,
            at: (rip != 0).then(|| symbols.linear().name(Gla(rip)).or_else(|| symbols.name(Gpa(rip)))).flatten(),
            code: disassembled(&step.code, rip),
            outcome: outcome(&step.outcome),
            effects: step.effects.list.iter().map(effect).collect(),
            connection: step.connection,
            remark: None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a field over so")]
fn address<S: Serializer>(rip: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    (*rip != 0).then(|| format!("{rip:#x}")).serialize(serializer)
}

/// What an input is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// The vCPU.
    pub vcpu: Option<u32>,
    /// The ring.
    pub ring: Option<Ring>,
    /// The first frame.
    pub gfn: Option<Gfn>,
    /// The offset in it.
    pub offset: Option<u16>,
    /// What was wanted.
    pub rights: Option<Rights>,
    /// The instruction pointer, 0 where it is not known.
    pub rip: u64,
}

impl About {
    /// What this input is about.
    #[must_use]
    pub fn of(input: &Input) -> About {
        let of_access = |access: &Access| About {
            gfn: Some(access.gfn),
            offset: Some(access.offset),
            rights: Some(access.rights),
            rip: access.rip,
            ..About::default()
        };
        let frame = |gfn: Gfn| About { gfn: Some(gfn), ..About::default() };
        let of_ring = |ring: Ring| About { ring: Some(ring), ..About::default() };
        match input {
            Input::Access { vcpu, access } | Input::AccessNosleep { vcpu, access } => {
                About { vcpu: Some(vcpu.0), ..of_access(access) }
            }
            Input::Foreign { access } => of_access(access),
            Input::Kick { ring } | Input::ConsumerLost { ring } => of_ring(*ring),
            Input::CpuEvent { vcpu, event } => {
                About { vcpu: Some(vcpu.0), ring: Some(Ring::Access), rip: event.rip.0, ..About::default() }
            }
            Input::Balloon { vcpu, gfn } => About { vcpu: Some(vcpu.0), ..frame(*gfn) },
            Input::Abandon { vcpu } | Input::Emulated { vcpu } => About { vcpu: Some(vcpu.0), ..About::default() },
            Input::Unpopulated { first, .. } => frame(*first),
            Input::FillFailed { gfn } => frame(*gfn),
            Input::Control(control) => of_control(control),
            #[allow(unreachable_patterns, reason = "an input that this file does not know yet is shown all the same")]
            _ => About::default(),
        }
    }
}

fn of_control(control: &Control) -> About {
    let frame = |gfn: Gfn| About { gfn: Some(gfn), ..About::default() };
    match *control {
        Control::Enable { ring, .. }
        | Control::Disable { ring, .. }
        | Control::Resume { ring }
        | Control::SetNoConsumer { ring, .. }
        | Control::SetFlow { ring, .. } => About { ring: Some(ring), ..About::default() },
        Control::SetAccess { first: gfn, .. }
        | Control::SetViewAccess { first: gfn, .. }
        | Control::GetViewAccess { gfn, .. }
        | Control::GetAccess { gfn }
        | Control::Nominate { gfn }
        | Control::Evict { gfn }
        | Control::Prep { gfn, .. }
        | Control::Drop { gfn }
        | Control::Pin { gfn }
        | Control::Unpin { gfn }
        | Control::NominateShare { gfn }
        | Control::Share { client: gfn, .. } => frame(gfn),
        Control::SingleStep { vcpu, .. }
        | Control::Inject { vcpu, .. }
        | Control::SwitchVcpuView { vcpu, .. }
        | Control::GetVcpuView { vcpu } => About { vcpu: Some(vcpu.0), ..About::default() },
        _ => About::default(),
    }
}

/// The vCPU of a request; none of a foreign one.
#[must_use]
pub fn vcpu_of(request: &Request) -> Option<VcpuId> {
    (!request.flags.contains(Flags::FOREIGN)).then_some(request.vcpu)
}

/// An input in one word.
#[must_use]
pub fn kind(input: &Input) -> String {
    input.kind().to_owned()
}

/// What somebody waits for, in words.
#[must_use]
pub fn reason(reason: WaitReason) -> String {
    match reason {
        WaitReason::Answer(ring) => format!("answer on {ring}"),
        WaitReason::Slot(ring) => format!("slot of {ring}"),
        WaitReason::Consumer(ring) => format!("consumer of {ring}"),
        WaitReason::Frame => "frame".into(),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Proceed => "proceed".into(),
        Outcome::Value(value) => format!("value {value:#x}"),
        Outcome::Wait(why) => format!("wait: {}", reason(*why)),
        Outcome::Retry(errno) => format!("retry: {errno:?}"),
        Outcome::Refused(errno, why) => format!("{errno:?}: {why}"),
        Outcome::Crashed => "crashed".into(),
        Outcome::Skip => "denied".into(),
        Outcome::Alone => "alone".into(),
    }
}

/// An effect in words.
#[must_use]
pub fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Requested { ring, slot, request } => {
            format!("request {ring}[{slot}] vcpu {} gfn {:#x} {}", request.vcpu, request.event.subject(), request.flags)
        }
        Effect::Answered { ring, slot, response } => {
            format!("answer {ring}[{slot}] vcpu {} gfn {:#x} {}", response.vcpu, response.subject(), response.flags)
        }
        Effect::Notify(ring) => format!("notify {ring}"),
        Effect::Wake(vcpu) => format!("wake vcpu {vcpu}"),
        Effect::SetRegisters { vcpu, registers } => format!("set registers of vcpu {vcpu}, rip {:#x}", registers.rip),
        Effect::Inject { vcpu, trap } => format!("inject trap {} into vcpu {vcpu}", trap.vector),
        Effect::RetryForeign => "retry foreign".into(),
        Effect::Unmap(gfn) => format!("unmap {gfn}"),
        Effect::Map(gfn) => format!("map {gfn}"),
        Effect::Punch(gfn) => format!("punch {gfn}"),
        Effect::Fill(gfn) => format!("fill {gfn}"),
        Effect::Zero(gfn) => format!("zero {gfn}"),
        Effect::Switched(vcpu) => format!("switched {vcpu}"),
        Effect::NextInterrupt(vcpu) => format!("tell the next interrupt of vcpu {vcpu}"),
        Effect::Tighten { first, count } => format!("tighten {first} and on, {count}"),
        Effect::Lost { ring, request, printed } => {
            let how = if *printed { "with a line on the console" } else { "silently" };
            format!("lost {ring} vcpu {} gfn {:#x} {}, {how}", request.vcpu, request.event.subject(), request.flags)
        }
        other => format!("{other:?}"),
    }
}

/// The instruction in a step's code.
#[must_use]
pub fn disassembled(code: &[u8], rip: u64) -> Option<String> {
    let (bits, bytes) = code.split_first()?;
    if ![16, 32, 64].contains(bits) || bytes.is_empty() {
        return None;
    }
    let instruction = Decoder::with_ip(u32::from(*bits), bytes, rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        return None;
    }
    let (mut formatter, mut text) = (IntelFormatter::new(), String::new());
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.format(&instruction, &mut text);
    Some(text)
}

/// Nanoseconds as people read them.
#[must_use]
pub fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanoseconds as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.2} s", nanoseconds as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, disassembled};

    #[test]
    fn an_instruction_pointer_keeps_all_its_bits_in_json() {
        let mut row = Row {
            step: 1,
            time: 0,
            kind: "access".into(),
            vcpu: Some(0),
            ring: None,
            gfn: None,
            offset: None,
            place: None,
            rights: None,
            rip: 0xffff_ffff_8100_0001,
            at: None,
            code: None,
            outcome: "proceed".into(),
            effects: Vec::new(),
            connection: 0,
            remark: None,
        };
        assert_eq!(serde_json::to_value(&row).unwrap()["rip"], "0xffffffff81000001");
        row.rip = 0;
        assert!(serde_json::to_value(&row).unwrap()["rip"].is_null(), "it is not known");
    }

    #[test]
    fn code_is_disassembled_by_its_size() {
        assert_eq!(disassembled(&[64, 0x48, 0x89, 0x03, 0x90], 0).as_deref(), Some("mov [rbx], rax"));
        assert_eq!(disassembled(&[32, 0x89, 0x03], 0).as_deref(), Some("mov [ebx], eax"));
        assert_eq!(disassembled(&[64, 0x48], 0), None, "the bytes end before the instruction does");
        assert_eq!(disassembled(&[], 0), None);
    }
}
