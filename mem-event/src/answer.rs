//! What of a response matters to the engine.

use crate::cpu_events::CpuEventKind;
use crate::event::Flags;
use crate::number::ViewId;
use crate::registers;
use crate::wire::vm_event;

/// The flags by which what a response of `vm_event` has in place of registers counts.
pub(crate) const WITH_DATA: u32 = Flags::SET_REGISTERS.0 | Flags::SET_EMUL_READ_DATA.0 | Flags::SET_EMUL_INSN_DATA.0;

/// What of a response matters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub flags: Flags,
    pub vcpu: u32,
    /// [`crate::Event::subject`].
    pub subject: u64,
    /// It answers a foreign request.
    pub foreign: bool,
    /// It speaks another version, and nothing of it counts.
    pub skip: bool,
    /// It is about another kind of event than its ring's page-ins: only layouts that have a reason there can say so.
    pub other_reason: bool,
    /// The kind of CPU event that it is about, in a layout whose answers do more about those than let the vCPU go on.
    pub cpu_event: Option<CpuEventKind>,
    /// It is about a violation; only layouts that have a reason there can say so.
    pub is_violation: bool,
    /// The view that it names.
    pub view: ViewId,
    /// The view that its vCPU steps into, where its flags say that it does.
    pub after_step: Option<ViewId>,
    /// What it has where a request has registers, where its flags say that this counts.
    pub data: Option<Box<[u64; registers::WORDS]>>,
}

/// The last words of the slot that was taken last: in its one copy.
pub(crate) fn data_of(taken: &[u8]) -> Option<Box<[u64; registers::WORDS]>> {
    let (words, _) = taken.last_chunk::<{ 8 * registers::WORDS }>()?.as_chunks();
    words.try_into().ok().map(|words: [[u8; 8]; registers::WORDS]| Box::new(words.map(u64::from_le_bytes)))
}

/// The view that stands where a slot of `vm_event` that was just taken has its subject.
pub(crate) fn stepped_into(taken: &[u8]) -> Option<ViewId> {
    let slot = taken.last_chunk::<{ 8 * vm_event::WORDS }>()?;
    slot[24..].first_chunk().map(|bytes| ViewId(u16::from_le_bytes(*bytes)))
}
