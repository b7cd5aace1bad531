//! What replies tell of the domain: its figures, where its vCPUs and rings stand, which CPU events are reported, which devices wait, what its
//! frames are.

use super::packet::Malformed;
use crate::control::{MonitorMode, NoConsumer, Ring};
use crate::cpu_events::CpuEventKind;
use crate::number::{Gfn, PAGE_SIZE};
use crate::p2m::P2mType;
use crate::table::table;

/// The domain's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// vCPUs.
    pub vcpus: u64,
    /// RAM frames.
    pub frames: u64,
    /// Frames that hold memory now.
    pub resident: u64,
    /// Frames whose content is with the pager.
    pub paged: u64,
    /// Frames the domain may hold, `u64::MAX` for no limit.
    pub budget: u64,
}

impl Info {
    /// The figures as a reply's values.
    #[must_use]
    pub fn values(self) -> [u64; 5] {
        [self.vcpus, self.frames, self.resident, self.paged, self.budget]
    }

    /// The figures of a reply's values.
    #[must_use]
    pub fn from_values([vcpus, frames, resident, paged, budget]: [u64; 5]) -> Info {
        Info { vcpus, frames, resident, paged, budget }
    }
}

table! {
    /// What a vCPU does: what [`super::Call::Vcpus`] tells of each.
    pub enum VcpuState {
        /// It runs, or QEMU stopped it, or it is not there.
        Running = 0 "running",
        /// It waits for an answer.
        Answer = 1 "answer",
        /// It waits for a slot.
        Slot = 2 "slot",
        /// It waits for a consumer.
        Consumer = 3 "consumer",
        /// It waits for a frame within the budget.
        Frame = 4 "frame",
        /// It stands at a checkpoint.
        Checkpoint = 5 "checkpoint",
        /// A client paused the domain.
        Paused = 6 "paused",
    }
}

table! {
    /// Why a vCPU that stands in the kernel does not leave its block before it has its answer: until then QEMU's requests to all vCPUs wait
    /// with it.
    pub enum Stays {
        /// It is in the midst of no instruction's own access: of a translation, of a delivery, of a device's work.
        InNoAccess = 1 "in no access",
        /// Its instruction may have written already.
        Written = 2 "written",
        /// Its instruction uses a device or a port.
        Device = 3 "device",
        /// Its instruction changes segments or tasks.
        Tables = 4 "tables",
        /// QEMU holds something meanwhile.
        Held = 5 "held",
    }
}

/// What a vCPU waits for: [`super::Call::Vcpus`].
///
/// ```text
///  0  u8 state    1  u8 ring, 0 for none    2  u8 why it stays, 0 for not so    3  u8 zero
///  4  u32 milliseconds    8  u64 frame, all ones for none
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuReport {
    /// What it does.
    pub state: VcpuState,
    /// The ring whose answer, slot or consumer it waits for.
    pub ring: Option<Ring>,
    /// The frame of the request whose answer it waits for; for CPU events the new value of the register.
    pub frame: Option<Gfn>,
    /// For how many milliseconds it has waited.
    pub waited: u32,
    /// Why it cannot leave its block meanwhile, where it cannot.
    pub stays: Option<Stays>,
}

impl VcpuReport {
    /// Bytes of one.
    pub const BYTES: usize = 16;
    /// How many come with one reply.
    pub const MOST: usize = PAGE_SIZE / VcpuReport::BYTES;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; VcpuReport::BYTES] {
        let mut bytes = [0; VcpuReport::BYTES];
        bytes[0] = self.state as u8;
        bytes[1] = self.ring.map_or(0, |ring| ring as u8);
        bytes[2] = self.stays.map_or(0, |stays| stays as u8);
        bytes[4..8].copy_from_slice(&self.waited.to_le_bytes());
        bytes[8..].copy_from_slice(&self.frame.map_or(u64::MAX, |gfn| gfn.0).to_le_bytes());
        bytes
    }

    /// The reports of a reply's payload.
    ///
    /// # Errors
    /// A payload that is none of this version.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<VcpuReport>, Malformed> {
        reports::<{ VcpuReport::BYTES }>(payload, "vCPU")?.iter().map(|bytes| VcpuReport::decode(*bytes)).collect()
    }

    fn decode(bytes: [u8; VcpuReport::BYTES]) -> Result<VcpuReport, Malformed> {
        let [state, ring, stays, _, w0, w1, w2, w3, frame @ ..] = bytes;
        let frame = u64::from_le_bytes(frame);
        Ok(VcpuReport {
            state: VcpuState::from_number(state).ok_or_else(|| Malformed(format!("no state {state}")))?,
            ring: Ring::from_number(ring),
            frame: (frame != u64::MAX).then_some(Gfn(frame)),
            waited: u32::from_le_bytes([w0, w1, w2, w3]),
            stays: Stays::from_number(stays),
        })
    }
}

table! {
    /// Where a ring stands in its life: what [`super::Call::Rings`] tells of each.
    pub enum RingState {
        /// Never enabled, or ended.
        Absent = 0 "absent",
        /// A consumer holds it.
        Live = 1 "live",
        /// It ends when the last answer is in.
        Draining = 2 "draining",
        /// Its consumer is gone; what was not answered is kept for the successor.
        Lost = 3 "lost",
        /// Its consumer wrote nonsense.
        Broken = 4 "broken",
    }
}

/// A ring as it stands: [`super::Call::Rings`].
///
/// ```text
///  0  u8 ring    1  u8 state    2  u8 no consumer    3  u8 zero    4  u32 slots    8  u32 free slots
/// 12  u32 requests without an answer    16  u32 vCPUs that wait for a slot or a consumer    20  u32 process, 0 for none
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingReport {
    /// Which.
    pub ring: Ring,
    /// Where it stands.
    pub state: RingState,
    /// What happens while it has no consumer.
    pub policy: NoConsumer,
    /// How many slots it has; 0 where there is no ring.
    pub slots: u32,
    /// Slots that nobody holds.
    pub free: u32,
    /// Requests without an answer.
    pub unanswered: u32,
    /// vCPUs that wait for a slot, or for a consumer while there is none.
    pub queued: u32,
    /// The process that enabled it, as QEMU sees its number; 0 where there is none, or QEMU does not see it.
    pub process: u32,
}

impl RingReport {
    /// Bytes of one.
    pub const BYTES: usize = 24;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; RingReport::BYTES] {
        let mut bytes = [0; RingReport::BYTES];
        bytes[..3].copy_from_slice(&[self.ring as u8, self.state as u8, self.policy as u8]);
        let words = [self.slots, self.free, self.unanswered, self.queued, self.process];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The reports of a reply's payload.
    ///
    /// # Errors
    /// A payload that is none of this version.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<RingReport>, Malformed> {
        reports::<{ RingReport::BYTES }>(payload, "ring")?.iter().map(RingReport::decode).collect()
    }

    fn decode(bytes: &[u8; RingReport::BYTES]) -> Result<RingReport, Malformed> {
        let none = |what: &str, number: u8| Malformed(format!("no {what} {number}"));
        let [ring, state, policy, ..] = *bytes;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(RingReport {
            ring: Ring::from_number(ring).ok_or_else(|| none("ring", ring))?,
            state: RingState::from_number(state).ok_or_else(|| none("state of a ring", state))?,
            policy: NoConsumer::from_number(policy).ok_or_else(|| none("policy", policy))?,
            slots: word(4),
            free: word(8),
            unanswered: word(12),
            queued: word(16),
            process: word(20),
        })
    }
}

/// How one kind of CPU event is reported: [`super::Call::Monitors`]. A byte: the mode, and in bit 7 whether only changes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorReport {
    /// The kind.
    pub kind: CpuEventKind,
    /// How.
    pub mode: MonitorMode,
    /// Only where the new value differs from the old.
    pub on_change_only: bool,
}

impl MonitorReport {
    /// As a byte; the place in the payload is the kind's number.
    #[must_use]
    pub fn encode(self) -> u8 {
        self.mode as u8 | u8::from(self.on_change_only) << 7
    }

    /// The reports of a reply's payload.
    ///
    /// # Errors
    /// A payload that is none of this version.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<MonitorReport>, Malformed> {
        let one = |(number, byte): (usize, &u8)| {
            let kind = u8::try_from(number).ok().and_then(CpuEventKind::from_number);
            let (kind, mode) = (kind?, MonitorMode::from_number(byte & 0x7f)?);
            Some(MonitorReport { kind, mode, on_change_only: byte & 0x80 != 0 })
        };
        let all: Option<Vec<_>> = payload.iter().enumerate().map(one).collect();
        all.ok_or_else(|| Malformed(format!("{payload:?} are no monitors")))
    }
}

/// A device's access that waits for its frame: [`super::Call::Devices`].
///
/// ```text
///  0  u64 frame    8  u32 milliseconds    12  u32 zero
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// The frame.
    pub gfn: Gfn,
    /// For how many milliseconds it has waited.
    pub waited: u32,
}

impl DeviceReport {
    /// Bytes of one.
    pub const BYTES: usize = 16;
    /// How many come with one reply.
    pub const MOST: usize = PAGE_SIZE / DeviceReport::BYTES;

    /// As bytes.
    #[must_use]
    pub fn encode(self) -> [u8; DeviceReport::BYTES] {
        (u128::from(self.gfn.0) | u128::from(self.waited) << 64).to_le_bytes()
    }

    /// The reports of a reply's payload.
    ///
    /// # Errors
    /// A payload that is none of this version.
    pub fn decode_all(payload: &[u8]) -> Result<Vec<DeviceReport>, Malformed> {
        let decode = |[gfn @ .., w0, w1, w2, w3, _, _, _, _]: [u8; DeviceReport::BYTES]| DeviceReport {
            gfn: Gfn(u64::from_le_bytes(gfn)),
            waited: u32::from_le_bytes([w0, w1, w2, w3]),
        };
        Ok(reports(payload, "access")?.iter().copied().map(decode).collect())
    }
}

/// The reports of a payload, each of so many bytes.
pub(super) fn reports<'a, const BYTES: usize>(payload: &'a [u8], of: &str) -> Result<&'a [[u8; BYTES]], Malformed> {
    match payload.as_chunks() {
        (reports, []) => Ok(reports),
        _ => Err(Malformed(format!("{} bytes where each {of} has {BYTES}", payload.len()))),
    }
}

/// What a frame is, as [`super::Call::Types`] tells it: the type's number in the low seven bits, and in bit 7 whether memory is behind it.
#[must_use]
pub fn frame_byte(kind: P2mType, held: bool) -> u8 {
    kind as u8 | u8::from(held) << 7
}

/// The type of a frame and whether memory is behind it; `None` for a number that is no type's.
#[must_use]
pub fn frame_of_byte(byte: u8) -> Option<(P2mType, bool)> {
    Some((P2mType::from_number(byte & 0x7f)?, byte & 0x80 != 0))
}
