//! What a scenario's listener does about which events.

use super::act::MemoryAct;
use super::name::Name;
use super::text::{Number, Place};
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use mem_event::{AccessType, Cpu, Event, Gfn, Reason, Request, Rights};
use schemars::JsonSchema;
use serde::Deserialize;

/// A listener's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Listening {
    /// What it does about which events; the first rule that fits an event counts, and without one the page gets all rights.
    pub rules: Vec<Rule>,
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
    /// What is done while the vCPU is stopped.
    #[serde(rename = "do")]
    pub acts: Vec<MemoryAct>,
    /// How the event ends.
    pub then: Then,
}

/// How an access event ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
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
    /// The function at whose first instruction the vCPU stands is skipped (`vm_event7` only): it goes on where the function would return to,
    /// with this number in RAX.
    Return(Number),
    /// No answer: a consumer that hangs.
    Silence,
}

/// The frame that is accessed, or that holds the instruction; none of a register.
fn place(event: &Event) -> Option<Gfn> {
    match event {
        Event::Cpu(Cpu::Int3 { gfn, .. } | Cpu::SingleStep { gfn, .. }) => Some(*gfn),
        other => other.frame(),
    }
}

impl Rule {
    /// Whether the rule is for this request.
    ///
    /// # Errors
    /// Its range is none.
    pub fn fits(&self, request: &Request, symbols: &Symbols) -> Result<bool, Refusal> {
        if self.reason.is_some_and(|reason| reason.0 != request.event.reason())
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
