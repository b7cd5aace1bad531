//! Waits in words, and words as HTML shows them.

use crate::output::escaped;
use crate::trace::export::timeline::Timeline;
use crate::trace::row::{disassembled, duration};
use crate::trace::story::Wait;
use mem_event::{Gpa, Ring, WaitReason};

/// The colour of a wait.
pub(super) fn class(wait: &Wait) -> &'static str {
    match wait.reason {
        _ if wait.end.is_none() => "endless",
        WaitReason::Answer(Ring::Access) => "answer-access",
        WaitReason::Answer(Ring::Paging) => "answer-paging",
        WaitReason::Answer(Ring::Sharing) => "answer-sharing",
        WaitReason::Slot(_) => "slot",
        WaitReason::Consumer(_) => "consumer",
        WaitReason::Frame => "frame",
    }
}

/// The vCPUs whose requests hold the slots that are waited for.
pub(super) fn holders(wait: &Wait) -> String {
    let holders: Vec<String> = wait.holders.iter().map(u32::to_string).collect();
    format!("held by {}", holders.join(", "))
}

/// What is waited for.
pub(super) fn whom(wait: &Wait) -> String {
    if wait.holders.is_empty() { wait.whom() } else { format!("{}, {}", wait.whom(), holders(wait)) }
}

/// The frame and its symbol.
pub(super) fn place(wait: &Wait, timeline: &Timeline) -> String {
    let Some(gfn) = wait.gfn else { return String::new() };
    let name = timeline.symbols.name(Gpa(gfn.gpa().0)).map(|name| format!(" {name}")).unwrap_or_default();
    format!("{gfn}{name}")
}

/// The instruction and where it stands.
pub(super) fn instruction(wait: &Wait, timeline: &Timeline) -> String {
    if wait.rip == 0 {
        return String::new();
    }
    let at = timeline.symbols.name(Gpa(wait.rip)).unwrap_or_else(|| format!("{:#x}", wait.rip));
    let code = disassembled(&wait.code, wait.rip).unwrap_or_default();
    format!("<code>{}</code> <span class=\"soft\">in {}</span>", escaped(&code), escaped(&at))
}

/// A wait in one sentence.
pub(super) fn sentence(wait: &Wait, timeline: &Timeline) -> String {
    let length = duration(wait.length(timeline.last));
    let ended = if wait.end.is_none() { ", and never ended" } else { "" };
    let (whom, place) = (whom(wait), place(wait, timeline));
    format!("vCPU {} waits {length} for {whom}{ended}; frame {place}; step {}", wait.vcpu, wait.step)
}
