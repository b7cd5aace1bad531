//! What stands between the steps of a trace: what the recorder saw of the world outside of the engine.

use crate::control::Ring;
use crate::effect::Effect;
use crate::errno::Errno;
use crate::input::{Input, With};
use crate::message::{Call, Reply};
use crate::number::{Gfn, Gpa, VcpuId};
use crate::registers::Registers;
use bincode::{Decode, Encode};

/// Bytes of a call or reply that are kept whole: one about registers is far shorter.
const SHORT: usize = 1024;

/// Something that the engine does not know of, in its place among the engine's steps. A replay passes over it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Remark {
    /// A connection to the control socket.
    Came {
        /// Its number, from 1 in the order in which they came.
        connection: u32,
        /// The process at its other end; 0 where the recorder does not see into its namespace.
        process: u32,
        /// That process's user.
        user: u32,
        /// That process's program, as `/proc/PID/comm` has it; empty where it is not known.
        program: String,
    },
    /// A connection ended.
    Went {
        /// Which.
        connection: u32,
    },
    /// A vCPU stopped at a checkpoint or place, and subscribers heard of it.
    Stopped {
        /// The vCPU.
        vcpu: VcpuId,
        /// Where.
        at: Point,
        /// What it holds there: see [`crate::message::Notice`].
        arguments: [u64; 3],
    },
    /// A vCPU that stopped may go on: of several stops the oldest.
    Released {
        /// The vCPU.
        vcpu: VcpuId,
        /// By which connection; none where the last subscriber went.
        connection: Option<u32>,
    },
    /// A call that no step of the engine tells of: one that the engine does not see, or one that was refused before it came there.
    Called {
        /// By which connection.
        connection: u32,
        /// What was asked.
        call: Asked,
        /// What it was answered.
        reply: Answer,
    },
    /// What a frame held at a moment when that matters.
    Content {
        /// The frame.
        gfn: Gfn,
        /// Of its 4096 bytes: see [`crate::digest()`].
        hash: u64,
        /// Why it was looked at.
        how: Moment,
    },
    /// What a connection asked to be noted: a name for what it did since its last note or answer.
    Note {
        /// Which.
        connection: u32,
        /// The text.
        text: String,
    },
    /// A connection is a consumer's from now on, to which its maker handed it over.
    HandedOver {
        /// Which.
        connection: u32,
        /// The consumer's name.
        consumer: String,
    },
    /// The toolstack orders the pager to do something.
    Ordered {
        /// By which connection.
        connection: u32,
        /// The order as the pager gets it.
        order: String,
    },
    /// The registers that the request of the next step carries.
    Registers {
        /// Whose.
        vcpu: VcpuId,
        /// They.
        registers: Box<Registers>,
    },
}

/// Where a vCPU stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Point {
    /// The guest's checkpoint with this number.
    Number(u64),
    /// Before the instruction here.
    Place(Gpa),
}

/// When a frame's content was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Moment {
    /// It is evicted.
    Evicted,
    /// It came back with this content.
    Loaded,
    /// A call wrote into it.
    Written,
}

/// A call as the packet has it: see [`crate::message`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// The operation's number.
    pub operation: u16,
    /// Its arguments, without zeros at the end.
    pub arguments: Vec<u64>,
    /// What came with it.
    pub payload: Payload,
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Done; values without zeros at the end.
    Done(Vec<u64>),
    /// Done; some bytes.
    Bytes(Payload),
    /// Refused, and why.
    Refused(Errno, String),
}

/// Bytes, or what is kept of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Payload {
    /// How many.
    pub length: u32,
    /// Their digest ([`crate::digest()`]); 0 of none.
    pub hash: u64,
    /// The bytes themselves, where they are kept.
    pub bytes: Option<Vec<u8>>,
}

impl Payload {
    /// Of these bytes, which are kept or not.
    #[must_use]
    pub fn of(bytes: &[u8], kept: bool) -> Payload {
        let hash = if bytes.is_empty() { 0 } else { crate::digest(bytes) };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Payload { length, hash, bytes: (kept && !bytes.is_empty()).then(|| bytes.to_vec()) }
    }
}

impl Asked {
    /// A call; of a frame's bytes only the digest is kept.
    #[must_use]
    pub fn of(call: &Call) -> Asked {
        let (operation, arguments, payload) = call.parts();
        let of_frames = matches!(call, Call::WriteFrame { .. } | Call::WriteLinear { .. } | Call::Load { .. });
        let kept = !of_frames && payload.len() <= SHORT;
        Asked { operation, arguments: trimmed(arguments), payload: Payload::of(payload, kept) }
    }

    /// The call again; bytes that came with it and were not kept are zeros. None for an operation that this version does not know.
    #[must_use]
    pub fn call(&self) -> Option<Call> {
        let mut arguments = [0; 5];
        arguments.iter_mut().zip(&self.arguments).for_each(|(place, value)| *place = *value);
        let zeros = || vec![0; (self.payload.length as usize).min(crate::PAGE_SIZE)];
        let payload = self.payload.bytes.clone().unwrap_or_else(zeros);
        Call::from_parts(self.operation, arguments, &payload).ok()
    }
}

impl Answer {
    /// A reply to a call. What tells of registers and the like is kept whole, what a frame holds only if that is wanted.
    #[must_use]
    pub fn of(call: &Call, reply: &Reply, keep_frames: bool) -> Answer {
        match reply {
            Reply::Done(values) => Answer::Done(trimmed(*values)),
            Reply::Bytes(bytes) => {
                let of_frames = matches!(call, Call::ReadFrame { .. } | Call::ReadLinear { .. });
                let kept = if of_frames { keep_frames } else { bytes.len() <= SHORT };
                Answer::Bytes(Payload::of(bytes, kept))
            }
            Reply::Refused(errno, why) => Answer::Refused(*errno, why.clone()),
        }
    }
}

fn trimmed(values: [u64; 5]) -> Vec<u64> {
    let used = values.iter().rposition(|value| *value != 0).map_or(0, |last| last + 1);
    values[..used].to_vec()
}

impl Remark {
    /// What comes before a step of a vCPU, if a request that it put carries registers: a consumer may go by them, and no step tells them.
    #[must_use]
    pub fn of_registers(input: &Input, with: With<'_>, effects: &[Effect]) -> Option<Remark> {
        let registers = Box::new(*with.registers?);
        let (Input::Access { vcpu, .. } | Input::AccessNosleep { vcpu, .. } | Input::CpuEvent { vcpu, .. }) = *input
        else {
            return None;
        };
        let puts = |effect: &Effect| matches!(effect, Effect::Requested { ring: Ring::Access, .. });
        effects.iter().any(puts).then_some(Remark::Registers { vcpu, registers })
    }

    /// Its kind in JSON and CSV.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Remark::Came { .. } => "came",
            Remark::Went { .. } => "went",
            Remark::Stopped { .. } => "stopped",
            Remark::Released { .. } => "released",
            Remark::Called { .. } => "called",
            Remark::Content { .. } => "content",
            Remark::Note { .. } => "note",
            Remark::HandedOver { .. } => "handed-over",
            Remark::Ordered { .. } => "ordered",
            Remark::Registers { .. } => "registers",
        }
    }
}
