//! The bytes of the control socket: one packet (`SOCK_SEQPACKET`) a message, a header of 64 bytes and a payload.
//!
//! ```text
//!  0  u32 magic "MEV1"        4  u16 kind (1 call, 2 reply, 3 notice)    6  u16 operation
//!  8  u32 sequence number    12  u32 error: 0, or Xen's error number (replies only)
//! 16  u64 argument 0    24 u64 argument 1    32 u64 argument 2    40 u64 argument 3    48 u64 argument 4
//! 56  u32 payload length     60  u32 zero    64  payload
//! ```
//! All numbers are little endian. A reply carries its call's operation and sequence number. Where a reply has an error, its
//! payload is a sentence in UTF-8. The reply to `Enable` carries three descriptors (`SCM_RIGHTS`): the ring page's memory
//! file, the eventfd that the engine signals, the eventfd that the consumer signals. `SetPageFile` carries one, the reply to
//! `PageFile` carries it on.

use crate::control::{Control, Ring};
use crate::errno::Errno;
use crate::number::{Gfn, Gpa, PAGE_SIZE, VcpuId};
use crate::p2m::P2mType;
use crate::table::table;
use std::fmt;

/// Bytes in the header.
pub const HEADER: usize = 64;
/// Bytes in the largest packet.
pub const LARGEST: usize = HEADER + PAGE_SIZE;
/// The protocol's version, checked by [`Call::Hello`].
pub const VERSION: u64 = 2;

const MAGIC: u32 = u32::from_le_bytes(*b"MEV1");
const CALL: u16 = 1;
const REPLY: u16 = 2;
const NOTICE: u16 = 3;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The first call on a connection; the reply's argument 0 is the plugin's version of the protocol.
    Hello {
        /// The client's version.
        version: u64,
    },
    /// The domain's figures: see [`Info`].
    Info,
    /// From now on this connection gets notices, and vCPUs stop at checkpoints until released.
    Subscribe,
    /// Let a vCPU that stopped at a checkpoint go on.
    Release {
        /// The vCPU.
        vcpu: VcpuId,
    },
    /// A copy of some of a frame's bytes, as the reply's payload; pages nothing in (ENOENT for a frame that is paged out).
    ReadFrame {
        /// The frame.
        gfn: Gfn,
        /// First byte, 0 to 4095.
        offset: u16,
        /// How many bytes, 1 to 4096 less the offset.
        len: u16,
    },
    /// Overwrites some of a frame's bytes.
    WriteFrame {
        /// The frame.
        gfn: Gfn,
        /// First byte, 0 to 4095.
        offset: u16,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// A control operation of the engine.
    Control(Control),
    /// [`Control::Prep`] with the frame's content.
    Load {
        /// The frame.
        gfn: Gfn,
        /// 4096 bytes.
        content: Box<[u8]>,
    },
    /// What each vCPU does, from this one on: [`VcpuReport::BYTES`] bytes a vCPU in the reply's payload, see [`VcpuReport`]; at most
    /// [`VcpuReport::MOST`] of them.
    Vcpus {
        /// The first vCPU.
        first: VcpuId,
    },
    /// What frames are, from this one on: one byte a frame in the reply's payload, see [`frame_byte`]; at most 4096 of them, and none
    /// above the last frame.
    Types {
        /// The first frame.
        first: Gfn,
    },
    /// Hands the pager's page file over, as a descriptor that comes with the packet. The plugin keeps it for the pager's successor; it
    /// never looks into it. Only for whom the paging ring was enabled.
    SetPageFile,
    /// The page file that a pager handed over: the reply's argument 0 is 1 and the descriptor comes with it, or 0. Only for whom
    /// the paging ring was enabled.
    PageFile,
    /// The accesses of devices that wait in the kernel: [`DeviceReport::BYTES`] bytes each in the reply's payload, see [`DeviceReport`];
    /// at most [`DeviceReport::MOST`] of them.
    Devices,
    /// The trace, if there is one, ends here in order; the domain goes on without. For who is about to end a QEMU that may not come to
    /// its own end.
    EndTrace,
}

/// What a call is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done; up to five values.
    Done([u64; 5]),
    /// Done; some bytes.
    Bytes(Vec<u8>),
    /// Refused, and why.
    Refused(Errno, String),
}

/// What a subscriber hears unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A vCPU stopped at a checkpoint of the guest.
    Checkpoint {
        /// The vCPU.
        vcpu: VcpuId,
        /// The number (the guest's RDI).
        number: u64,
        /// The guest's RSI, RDX and RCX.
        arguments: [u64; 3],
    },
    /// The domain crashed, and why.
    Crashed(String),
    /// A vCPU stopped before the instruction at a place that the plugin was told.
    Place {
        /// The vCPU.
        vcpu: VcpuId,
        /// Where the instruction lies.
        gpa: Gpa,
        /// The guest's RDI, RSI and RDX: a function's first arguments.
        arguments: [u64; 3],
    },
}

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

table! {
    /// Where a vCPU stands: what [`Call::Vcpus`] tells of each.
    pub enum Standing {
        /// It runs, or QEMU stopped it.
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
    }
}

/// What a vCPU waits for: [`Call::Vcpus`].
///
/// ```text
///  0  u8 standing    1  u8 ring, 0 for none    2  u16 zero    4  u32 milliseconds    8  u64 frame, all ones for none
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuReport {
    /// Where it stands.
    pub standing: Standing,
    /// The ring whose answer, slot or consumer it waits for.
    pub ring: Option<Ring>,
    /// The frame of the request whose answer it waits for; for CPU events the new value of the register.
    pub frame: Option<Gfn>,
    /// For how many milliseconds it has waited.
    pub waited: u32,
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
        bytes[0] = self.standing as u8;
        bytes[1] = self.ring.map_or(0, |ring| ring as u8);
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
        let [standing, ring, _, _, w0, w1, w2, w3, frame @ ..] = bytes;
        let frame = u64::from_le_bytes(frame);
        Ok(VcpuReport {
            standing: Standing::from_number(standing).ok_or_else(|| Malformed(format!("no standing {standing}")))?,
            ring: Ring::from_number(ring),
            frame: (frame != u64::MAX).then_some(Gfn(frame)),
            waited: u32::from_le_bytes([w0, w1, w2, w3]),
        })
    }
}

/// A device's access that waits for its frame: [`Call::Devices`].
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
fn reports<'a, const BYTES: usize>(payload: &'a [u8], of: &str) -> Result<&'a [[u8; BYTES]], Malformed> {
    match payload.as_chunks() {
        (reports, []) => Ok(reports),
        _ => Err(Malformed(format!("{} bytes where each {of} has {BYTES}", payload.len()))),
    }
}

/// What a frame is, as [`Call::Types`] tells it: the type's number in the low seven bits, and in bit 7 whether memory is behind it.
#[must_use]
pub fn frame_byte(kind: P2mType, held: bool) -> u8 {
    kind as u8 | u8::from(held) << 7
}

/// The type of a frame and whether memory is behind it; `None` for a number that is no type's.
#[must_use]
pub fn frame_of_byte(byte: u8) -> Option<(P2mType, bool)> {
    Some((P2mType::from_number(byte & 0x7f)?, byte & 0x80 != 0))
}

/// A packet that is none of ours, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// A packet with its parts told apart; what its numbers mean is not checked yet.
struct Packet<'a> {
    kind: u16,
    operation: u16,
    sequence: u32,
    error: u32,
    arguments: [u64; 5],
    payload: &'a [u8],
}

impl<'a> Packet<'a> {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.operation.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.error.to_le_bytes());
        for argument in self.arguments {
            bytes.extend(argument.to_le_bytes());
        }
        bytes.extend(u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(self.payload);
        bytes
    }

    fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
            return Err(Malformed(format!("{} bytes where a header has {HEADER}", bytes.len())));
        };
        let u64_at = |at: usize| header[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let u32_at = |at: usize| header[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if u32_at(0) != MAGIC {
            return Err(Malformed(format!("magic {:#x} at byte 0 where {MAGIC:#x} stands", u32_at(0))));
        }
        if payload.len() > PAGE_SIZE || u32_at(56) as usize != payload.len() {
            return Err(Malformed(format!("payload length {} at byte 56, {} bytes follow", u32_at(56), payload.len())));
        }
        Ok(Packet {
            kind: u16_at(4),
            operation: u16_at(6),
            sequence: u32_at(8),
            error: u32_at(12),
            arguments: [u64_at(16), u64_at(24), u64_at(32), u64_at(40), u64_at(48)],
            payload,
        })
    }

    fn expect(self, kind: u16) -> Result<Packet<'a>, Malformed> {
        if self.kind == kind { Ok(self) } else { Err(Malformed(format!("kind {} where {kind} is due", self.kind))) }
    }

    fn u16(&self, index: usize) -> Result<u16, Malformed> {
        let value = self.arguments[index];
        u16::try_from(value).map_err(|_| Malformed(format!("argument {index} is {value:#x}, above 65535")))
    }

    fn u32(&self, index: usize) -> Result<u32, Malformed> {
        let value = self.arguments[index];
        u32::try_from(value).map_err(|_| Malformed(format!("argument {index} is {value:#x}, above 32 bits")))
    }

    fn gfn(&self) -> Gfn {
        Gfn(self.arguments[0])
    }
}

/// One call's operation number and arguments.
type Parts<'a> = (u16, [u64; 5], &'a [u8]);

fn call_parts(call: &Call) -> Parts<'_> {
    match call {
        Call::Hello { version } => (1, [*version, 0, 0, 0, 0], &[]),
        Call::Info => (2, [0; 5], &[]),
        Call::Subscribe => (3, [0; 5], &[]),
        Call::Release { vcpu } => (4, [u64::from(vcpu.0), 0, 0, 0, 0], &[]),
        Call::ReadFrame { gfn, offset, len } => (5, [gfn.0, u64::from(*offset), u64::from(*len), 0, 0], &[]),
        Call::WriteFrame { gfn, offset, bytes } => (6, [gfn.0, u64::from(*offset), 0, 0, 0], bytes),
        Call::Load { gfn, content } => (7, [gfn.0, 0, 0, 0, 0], content),
        Call::Vcpus { first } => (8, [u64::from(first.0), 0, 0, 0, 0], &[]),
        Call::Types { first } => (9, [first.0, 0, 0, 0, 0], &[]),
        Call::SetPageFile => (10, [0; 5], &[]),
        Call::PageFile => (11, [0; 5], &[]),
        Call::Devices => (12, [0; 5], &[]),
        Call::EndTrace => (13, [0; 5], &[]),
        Call::Control(control) => (control.number(), control.arguments(), &[]),
    }
}

impl Call {
    /// The packet of this call.
    #[must_use]
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let (operation, arguments, payload) = call_parts(self);
        Packet { kind: CALL, operation, sequence, error: 0, arguments, payload }.bytes()
    }

    /// The call of a packet, with its sequence number and operation, which the reply repeats.
    ///
    /// # Errors
    /// A packet that is no call of this version, with what is wrong and where.
    pub fn decode(bytes: &[u8]) -> Result<(u32, u16, Call), Malformed> {
        let packet = Packet::parse(bytes)?.expect(CALL)?;
        let call = match packet.operation {
            1 => Call::Hello { version: packet.arguments[0] },
            2 => Call::Info,
            3 => Call::Subscribe,
            4 => Call::Release { vcpu: VcpuId(packet.u32(0)?) },
            5 => Call::ReadFrame { gfn: packet.gfn(), offset: packet.u16(1)?, len: packet.u16(2)? },
            6 => Call::WriteFrame { gfn: packet.gfn(), offset: packet.u16(1)?, bytes: packet.payload.to_vec() },
            7 if packet.payload.len() == PAGE_SIZE => Call::Load { gfn: packet.gfn(), content: packet.payload.into() },
            7 => return Err(Malformed(format!("a load of {} bytes where a frame has 4096", packet.payload.len()))),
            8 => Call::Vcpus { first: VcpuId(packet.u32(0)?) },
            9 => Call::Types { first: packet.gfn() },
            10 => Call::SetPageFile,
            11 => Call::PageFile,
            12 => Call::Devices,
            13 => Call::EndTrace,
            number => Call::Control(Control::from_arguments(number, &packet.arguments).map_err(Malformed)?),
        };
        Ok((packet.sequence, packet.operation, call))
    }
}

impl Reply {
    /// The packet of this reply to the call with this sequence number and operation.
    #[must_use]
    pub fn encode(&self, sequence: u32, operation: u16) -> Vec<u8> {
        let (error, arguments, payload) = match self {
            Reply::Done(values) => (0, *values, &[][..]),
            Reply::Bytes(bytes) => (0, [0; 5], &bytes[..]),
            Reply::Refused(errno, sentence) => {
                (*errno as u32, [0; 5], &sentence.as_bytes()[..sentence.len().min(PAGE_SIZE)])
            }
        };
        Packet { kind: REPLY, operation, sequence, error, arguments, payload }.bytes()
    }

    /// The reply of a packet, with its sequence number.
    ///
    /// # Errors
    /// A packet that is no reply of this version.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Reply), Malformed> {
        let packet = Packet::parse(bytes)?.expect(REPLY)?;
        let reply = match u8::try_from(packet.error) {
            Ok(0) if packet.payload.is_empty() => Reply::Done(packet.arguments),
            Ok(0) => Reply::Bytes(packet.payload.to_vec()),
            Ok(number) => match Errno::from_number(number) {
                Some(errno) => Reply::Refused(errno, String::from_utf8_lossy(packet.payload).into_owned()),
                None => return Err(Malformed(format!("no error number {number}"))),
            },
            Err(_) => return Err(Malformed(format!("error number {} at byte 12", packet.error))),
        };
        Ok((packet.sequence, reply))
    }
}

impl Notice {
    /// Whether a packet is a notice and no reply.
    #[must_use]
    pub fn is_notice(bytes: &[u8]) -> bool {
        bytes.len() >= HEADER && u16::from_le_bytes([bytes[4], bytes[5]]) == NOTICE
    }

    /// The packet of this notice.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (operation, arguments, payload) = match self {
            Notice::Checkpoint { vcpu, number, arguments: [a, b, c] } => {
                (1, [u64::from(vcpu.0), *number, *a, *b, *c], &[][..])
            }
            Notice::Place { vcpu, gpa, arguments: [a, b, c] } => (3, [u64::from(vcpu.0), gpa.0, *a, *b, *c], &[][..]),
            Notice::Crashed(why) => (2, [0; 5], &why.as_bytes()[..why.len().min(PAGE_SIZE)]),
        };
        Packet { kind: NOTICE, operation, sequence: 0, error: 0, arguments, payload }.bytes()
    }

    /// The notice of a packet.
    ///
    /// # Errors
    /// A packet that is no notice of this version.
    pub fn decode(bytes: &[u8]) -> Result<Notice, Malformed> {
        let packet = Packet::parse(bytes)?.expect(NOTICE)?;
        match packet.operation {
            1 => Ok(Notice::Checkpoint {
                vcpu: VcpuId(packet.u32(0)?),
                number: packet.arguments[1],
                arguments: [packet.arguments[2], packet.arguments[3], packet.arguments[4]],
            }),
            2 => Ok(Notice::Crashed(String::from_utf8_lossy(packet.payload).into_owned())),
            3 => Ok(Notice::Place {
                vcpu: VcpuId(packet.u32(0)?),
                gpa: Gpa(packet.arguments[1]),
                arguments: [packet.arguments[2], packet.arguments[3], packet.arguments[4]],
            }),
            other => Err(Malformed(format!("no notice {other}"))),
        }
    }
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
