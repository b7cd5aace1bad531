//! What a scenario's listener does about which events.

use super::act::MemoryAct;
use super::hex::Hex;
use super::looking::{BreakBy, Pointer};
use super::name::Name;
use super::text::{Number, Place};
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use mem_event::{AccessType, Cpu, Event, Flags, Gfn, Gpa, Reason, Request, Rights};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// A listener's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Listening {
    /// What it does about which events; the first rule that fits an event counts, and without one the page gets all rights.
    pub rules: Vec<Rule>,
    /// Where the guest's program breaks: each time that it comes there an event is told, and it goes on.
    #[serde(rename = "break")]
    pub breaks: Vec<Place>,
    /// By what it breaks there.
    pub break_by: BreakBy,
    /// Registers that point to texts, which are told of each break.
    pub strings: Vec<Pointer>,
    /// Whether each event is told with the process that runs, by its name and number; of a Linux whose kernel is known.
    pub process: bool,
    /// How many instructions of each vCPU are told, one by one, from the start on.
    pub steps: Option<u64>,
    /// Of monitored model-specific registers only these are told; all where none is named.
    pub msrs: Vec<u32>,
    /// The run ends when so many breaks were told.
    pub count: Option<u64>,
    /// Which pages are touched, if that is to be known: a thing of the command line's.
    #[serde(skip)]
    pub touches: Option<Touching>,
}

/// How it is found which pages a guest touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touching {
    /// How long a page that was touched is left alone.
    pub window: Duration,
    /// Where the guest begins, which is where the firmware ends; without it all counts.
    pub entry: Option<Gpa>,
}

/// What the listener does about some events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    /// Only for this kind of event.
    pub reason: Option<Name<Reason>>,
    /// Only for exactly these accesses.
    pub on: Option<Name<Rights>>,
    /// Only for these frames.
    pub frames: Option<Place>,
    /// Only where this is a register's new value, the leaf of `cpuid`, the port, or the vector.
    pub value: Option<Number>,
    /// Only for events of this vCPU.
    pub vcpu: Option<u32>,
    /// What is done while the vCPU is stopped.
    #[serde(rename = "do")]
    pub acts: Vec<MemoryAct>,
    /// How the event ends.
    pub then: Then,
    /// The answer asks for the next interrupt or exception that the vCPU gets (`GET_NEXT_INTERRUPT`; `vm_event7` only): it is an event of its own.
    pub next_interrupt: bool,
}

/// How an access event ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// The page gets all rights, then the answer goes out.
    #[default]
    Relax,
    /// The page gets the rights that were asked for besides those it has, then the answer goes out.
    Grant,
    /// The page gets these rights, then the answer goes out.
    Set(Name<AccessType>),
    /// The answer goes out; with unchanged rights the same event comes again.
    Answer,
    /// The write to a register that the event tells of does not happen (`vm_event7` only), and the vCPU goes on behind it.
    Deny,
    /// The answer goes out, and no more: a breakpoint or debug exception is not injected, so the guest does not get it (`vm_event7` only).
    Withhold,
    /// The function at whose first instruction the vCPU stands is skipped (`vm_event7` only): it goes on where the function would return to,
    /// with this number in RAX.
    Return(Number),
    /// `cpuid` has returned these numbers in EAX, EBX, ECX and EDX (`vm_event7` only), and the vCPU goes on behind it.
    Cpuid([Number; 4]),
    /// The answer has the vCPU do this one instruction alone, whatever the rights say (`EMULATE`); they stay as they are.
    Emulate,
    /// The same with other content, other code, or without what it writes. Content and code need the layout `vm_event7`.
    EmulateWith(EmulateWith),
    /// The answer has the vCPU go by this view from now on (`ALTERNATE_P2M`; `vm_event7` only). Rights stay as they are.
    View(u16),
    /// The same for the one instruction (`FAST_SINGLESTEP`; `vm_event7` only, and single steps must be monitored).
    StepInView(StepInView),
    /// No answer: a consumer that hangs.
    Silence,
}

/// An instruction that is done in another view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StepInView {
    /// That view.
    pub view: u16,
    /// The view that the vCPU goes by then.
    pub back: u16,
}

/// What is other about an instruction that is done alone. As in Xen one of these counts: what it reads before what it writes, that before what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EmulateWith {
    /// It reads these bytes, and zeros behind them (`SET_EMUL_READ_DATA`).
    pub read: Option<Hex>,
    /// It is these bytes (`SET_EMUL_INSN_DATA`).
    pub code: Option<Hex>,
    /// What it writes is put back (`EMULATE_NOWRITE`).
    pub no_write: bool,
}

impl EmulateWith {
    /// The flags of the answer, and its data.
    #[must_use]
    pub fn answer(&self) -> (Flags, Vec<u8>) {
        let flag = |is_set: bool, flag| if is_set { flag } else { Flags::NONE };
        let flags = Flags::EMULATE
            .union(flag(self.read.is_some(), Flags::SET_EMUL_READ_DATA))
            .union(flag(self.code.is_some(), Flags::SET_EMUL_INSN_DATA))
            .union(flag(self.no_write, Flags::EMULATE_NOWRITE));
        // Both stand in one place, and what it reads counts before what it is.
        let data = match (&self.read, &self.code) {
            (Some(Hex(read)), _) => {
                let length = u32::try_from(read.len()).unwrap_or(u32::MAX);
                [length.to_le_bytes().as_slice(), read].concat()
            }
            (None, Some(Hex(code))) => code.clone(),
            (None, None) => Vec::new(),
        };
        (flags, data)
    }
}

/// The frame that is accessed, or that holds the instruction; none of a register.
fn place(event: &Event) -> Option<Gfn> {
    match event {
        Event::Cpu(Cpu::Int3 { gfn, .. } | Cpu::Debug { gfn, .. } | Cpu::SingleStep { gfn, .. }) => Some(*gfn),
        other => other.frame(),
    }
}

/// Whether this is a register's new value, the leaf of `cpuid`, the port, or the vector.
fn is_value(event: &Event, value: u64) -> bool {
    matches!(event, Event::Cpu(_)) && place(event).is_none() && event.subject() == value
}

impl Rule {
    /// Whether the rule is for this request.
    ///
    /// # Errors
    /// Its range is none.
    pub fn fits(&self, request: &Request, symbols: &Symbols) -> Result<bool, Refusal> {
        if self.reason.is_some_and(|reason| reason.0 != request.event.reason())
            || self.vcpu.is_some_and(|vcpu| vcpu != request.vcpu.0)
            || self.value.is_some_and(|value| !is_value(&request.event, value.0))
            || self.on.is_some_and(|rights| rights.0 != request.event.rights())
        {
            return Ok(false);
        }
        match &self.frames {
            None => Ok(true),
            Some(frames) => {
                let frames = frames.frames(symbols)?;
                Ok(place(&request.event).is_some_and(|gfn| frames.contains(gfn)))
            }
        }
    }
}
