//! What a client asks for.

use super::packet::{CALL, Malformed, Packet};
use crate::control::Control;
use crate::number::{Gfn, Gla, Gpa, PAGE_SIZE, VcpuId};
use crate::registers::Context;
use std::fmt;

/// By which page tables a linear address is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The vCPU whose way of paging it is.
    pub vcpu: VcpuId,
    /// The root of the tables; the vCPU's own for `None`.
    pub cr3: Option<u64>,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cr3 {
            None => write!(f, "by vCPU {}", self.vcpu),
            Some(cr3) => write!(f, "by CR3 {cr3:#x} and vCPU {}", self.vcpu),
        }
    }
}

/// On the socket: the vCPU's own tables. No CR3 is that.
const OWN: u64 = u64::MAX;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The first call on a connection; the reply's argument 0 is the plugin's version of the protocol.
    Hello {
        /// The client's version.
        version: u64,
    },
    /// The domain's figures: see [`super::Info`].
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
    /// What each vCPU does, from this one on: [`super::VcpuReport::BYTES`] bytes a vCPU in the reply's payload, see [`super::VcpuReport`]; at most
    /// [`super::VcpuReport::MOST`] of them.
    Vcpus {
        /// The first vCPU.
        first: VcpuId,
    },
    /// What frames are, from this one on: one byte a frame in the reply's payload, see [`super::frame_byte`]; at most 4096 of them, and none
    /// above the last frame.
    Types {
        /// The first frame.
        first: Gfn,
    },
    /// Hands the pager's page file over, as a descriptor that comes with the packet. The plugin keeps it for the pager's successor; it
    /// never looks into it. Only for the client that enabled the paging ring.
    SetPageFile,
    /// The page file that a pager handed over: the reply's argument 0 is 1 and the descriptor comes with it, or 0. Only for
    /// the client that enabled the paging ring.
    PageFile,
    /// The accesses of devices that wait in the kernel: [`super::DeviceReport::BYTES`] bytes each in the reply's payload, see [`super::DeviceReport`];
    /// at most [`super::DeviceReport::MOST`] of them.
    Devices,
    /// The trace, if there is one, ends here in order; the domain goes on without. For a caller that is about to end a QEMU which may not come
    /// to its own end.
    EndTrace,
    /// How the three rings stand: [`super::RingReport::BYTES`] bytes each in the reply's payload, see [`super::RingReport`].
    Rings,
    /// Which CPU events are reported, and how: a byte for each kind in the reply's payload, see [`super::MonitorReport`].
    Monitors,
    /// Puts a text into the trace, if there is one: a name for what this connection did since its last note or answer. The reply's
    /// argument 0 is how many steps the trace has by now, which are then on their way to its file; 0 without a trace. An empty
    /// text is not put there.
    Note {
        /// The text, at most 4096 bytes of UTF-8.
        text: String,
    },
    /// Records the run for this connection from here on, as a trace that begins with the engine's state, into the file or pipe whose
    /// descriptor comes with the packet. It ends in order with the connection.
    Record,
    /// Says whose this connection is from now on, for the trace: that of a consumer to which its maker hands it over.
    HandOver {
        /// The consumer's name.
        text: String,
    },
    /// Says what the pager is ordered to do now, for the trace: the order itself goes another way.
    Ordered {
        /// The order, as the pager gets it.
        text: String,
    },
    /// The memory file, whose descriptor comes with the reply: for a client that maps frames of it into its own memory, with [`Call::Map`].
    /// Only where the plugin was started with `foreign=map`.
    Memory {
        /// Not the file of RAM, but that of frames beyond it ([`Control::Populate`]); refused while there are none.
        beyond: bool,
    },
    /// [`Control::Pin`] of a frame that the client then maps from the memory file: the reply's argument 0 is the frame's offset there, and
    /// argument 1 whether that is the file of frames beyond RAM. A frame that was shared is so no more. [`Control::Unpin`] ends it.
    Map {
        /// The frame.
        gfn: Gfn,
        /// Whether the mapping may be written: the frame's code is made anew when it ends.
        write: bool,
    },
    /// A vCPU's registers, as the reply's payload: see [`Context`]. EAGAIN while it runs.
    Registers {
        /// The vCPU.
        vcpu: VcpuId,
    },
    /// Sets a vCPU's registers. EAGAIN while it runs.
    SetRegisters {
        /// The vCPU.
        vcpu: VcpuId,
        /// [`Context::encode`].
        context: Box<[u8]>,
    },
    /// No vCPU runs any more once the reply is there. Counted; the connection's end takes back what it has left.
    Pause,
    /// Takes one `Pause` of this connection back.
    Unpause,
    /// The frame, as value 0, and the offset in it, as value 1, of a linear address.
    Translate {
        /// The vCPU by whose way of paging it is meant.
        vcpu: VcpuId,
        /// The root of the tables; the vCPU's own for `None`.
        cr3: Option<u64>,
        /// The address.
        address: Gla,
    },
    /// A copy of the bytes at a linear address, as the reply's payload; they may lie in two frames. Refused as [`Call::ReadFrame`].
    ReadLinear {
        /// The vCPU by whose way of paging it is meant.
        vcpu: VcpuId,
        /// The root of the tables; the vCPU's own for `None`.
        cr3: Option<u64>,
        /// The address.
        address: Gla,
        /// How many bytes, 1 to 4096.
        len: u16,
    },
    /// Overwrites the bytes at a linear address, all or none.
    WriteLinear {
        /// The vCPU by whose way of paging it is meant.
        vcpu: VcpuId,
        /// The root of the tables; the vCPU's own for `None`.
        cr3: Option<u64>,
        /// The address.
        address: Gla,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Puts the instruction `int3` over a byte, which is this connection's breakpoint from then on: the reply's argument 0 is the byte that is there
    /// without breakpoints, argument 1 how many other connections have one there. Until it is cleared the frame stays as a pinned one does. Of a
    /// breakpoint that is there already the byte is put over again.
    SetBreakpoint {
        /// The frame.
        gfn: Gfn,
        /// The byte, 0 to 4095.
        offset: u16,
        /// Whether it stays when the connection ends; else the byte is taken back then.
        stays: bool,
    },
    /// Ends this connection's breakpoint, or one that an ended connection left: the reply's argument 0 is how many others are there. The last one gone,
    /// the byte is as it was.
    ClearBreakpoint {
        /// The frame.
        gfn: Gfn,
        /// The byte, 0 to 4095.
        offset: u16,
    },
    /// Whose breakpoints there are, from this address on: [`super::BreakpointReport::BYTES`] bytes each in the reply's payload, see
    /// [`super::BreakpointReport`]; none above the last.
    Breakpoints {
        /// The first address.
        first: Gpa,
    },
}

/// One call's operation number, arguments and payload.
pub(crate) type Parts<'a> = (u16, [u64; 5], &'a [u8]);

impl Call {
    /// Its operation's number, arguments and payload.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        match self {
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
            Call::Rings => (14, [0; 5], &[]),
            Call::Monitors => (15, [0; 5], &[]),
            Call::Note { text } => (64, [0; 5], text.as_bytes()),
            Call::Record => (65, [0; 5], &[]),
            Call::HandOver { text } => (66, [0; 5], text.as_bytes()),
            Call::Ordered { text } => (67, [0; 5], text.as_bytes()),
            Call::Memory { beyond } => (68, [u64::from(*beyond), 0, 0, 0, 0], &[]),
            Call::Map { gfn, write } => (69, [gfn.0, u64::from(*write), 0, 0, 0], &[]),
            Call::Registers { vcpu } => (70, [u64::from(vcpu.0), 0, 0, 0, 0], &[]),
            Call::SetRegisters { vcpu, context } => (71, [u64::from(vcpu.0), 0, 0, 0, 0], context),
            Call::Pause => (72, [0; 5], &[]),
            Call::Unpause => (73, [0; 5], &[]),
            Call::Translate { vcpu, cr3, address } => (74, linear(*vcpu, *cr3, *address, 0), &[]),
            Call::ReadLinear { vcpu, cr3, address, len } => (75, linear(*vcpu, *cr3, *address, *len), &[]),
            Call::WriteLinear { vcpu, cr3, address, bytes } => (76, linear(*vcpu, *cr3, *address, 0), bytes),
            Call::SetBreakpoint { gfn, offset, stays } => {
                (77, [gfn.0, u64::from(*offset), u64::from(*stays), 0, 0], &[])
            }
            Call::ClearBreakpoint { gfn, offset } => (78, [gfn.0, u64::from(*offset), 0, 0, 0], &[]),
            Call::Breakpoints { first } => (79, [first.0, 0, 0, 0, 0], &[]),
            Call::Control(control) => (control.number(), control.arguments(), &[]),
        }
    }

    /// The packet of this call.
    #[must_use]
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let (operation, arguments, payload) = self.parts();
        Packet { kind: CALL, operation, sequence, error: 0, arguments, payload }.bytes()
    }

    /// The call of a packet, with its sequence number and operation, which the reply repeats.
    ///
    /// # Errors
    /// A packet that is no call of this version, with what is wrong and where.
    pub fn decode(bytes: &[u8]) -> Result<(u32, u16, Call), Malformed> {
        let packet = Packet::parse(bytes)?.expect(CALL)?;
        Ok((packet.sequence, packet.operation, Call::of(&packet)?))
    }

    /// The call with these parts.
    ///
    /// # Errors
    /// They are no call of this version; what is wrong and where.
    pub fn from_parts(operation: u16, arguments: [u64; 5], payload: &[u8]) -> Result<Call, Malformed> {
        Call::of(&Packet { kind: CALL, operation, sequence: 0, error: 0, arguments, payload })
    }

    fn of(packet: &Packet<'_>) -> Result<Call, Malformed> {
        Ok(match packet.operation {
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
            14 => Call::Rings,
            15 => Call::Monitors,
            64 => Call::Note { text: packet.text("a note")? },
            65 => Call::Record,
            66 => Call::HandOver { text: packet.text("a consumer's name")? },
            67 => Call::Ordered { text: packet.text("an order")? },
            68 => Call::Memory { beyond: packet.switch(0)? },
            69 => Call::Map { gfn: packet.gfn(), write: packet.switch(1)? },
            70 => Call::Registers { vcpu: VcpuId(packet.u32(0)?) },
            71 if packet.payload.len() == Context::BYTES => {
                Call::SetRegisters { vcpu: VcpuId(packet.u32(0)?), context: packet.payload.into() }
            }
            71 => {
                let (found, due) = (packet.payload.len(), Context::BYTES);
                return Err(Malformed(format!("{found} bytes where a vCPU's registers have {due}")));
            }
            72 => Call::Pause,
            73 => Call::Unpause,
            74..=76 => Call::about_linear(packet)?,
            77 => Call::SetBreakpoint { gfn: packet.gfn(), offset: packet.u16(1)?, stays: packet.switch(2)? },
            78 => Call::ClearBreakpoint { gfn: packet.gfn(), offset: packet.u16(1)? },
            79 => Call::Breakpoints { first: Gpa(packet.arguments[0]) },
            number => Call::Control(Control::from_arguments(number, &packet.arguments).map_err(Malformed)?),
        })
    }

    /// A call about a linear address.
    fn about_linear(packet: &Packet<'_>) -> Result<Call, Malformed> {
        let (vcpu, address) = (VcpuId(packet.u32(0)?), Gla(packet.arguments[2]));
        let cr3 = Some(packet.arguments[1]).filter(|cr3| *cr3 != OWN);
        Ok(match packet.operation {
            74 => Call::Translate { vcpu, cr3, address },
            75 => Call::ReadLinear { vcpu, cr3, address, len: packet.u16(3)? },
            _ => Call::WriteLinear { vcpu, cr3, address, bytes: packet.payload.to_vec() },
        })
    }
}

impl fmt::Display for Call {
    /// The call in a few words, without a frame's content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Hello { version } => write!(f, "hello of version {version}"),
            Call::Info => f.write_str("info"),
            Call::Subscribe => f.write_str("subscribe"),
            Call::Release { vcpu } => write!(f, "release of vCPU {vcpu}"),
            Call::ReadFrame { gfn, offset, len } => write!(f, "read of {len} bytes at frame {gfn} offset {offset:#x}"),
            Call::WriteFrame { gfn, offset, bytes } => {
                write!(f, "write of {} bytes at frame {gfn} offset {offset:#x}", bytes.len())
            }
            Call::Control(control) => control.fmt(f),
            Call::Load { gfn, .. } => write!(f, "load of frame {gfn}"),
            Call::Vcpus { first } => write!(f, "state of the vCPUs from {first} on"),
            Call::Types { first } => write!(f, "types of the frames from {first} on"),
            Call::SetPageFile => f.write_str("hand-over of the page file"),
            Call::PageFile => f.write_str("request for the page file"),
            Call::Devices => f.write_str("list of waiting devices"),
            Call::EndTrace => f.write_str("end of the trace"),
            Call::Rings => f.write_str("state of the rings"),
            Call::Monitors => f.write_str("list of monitors"),
            Call::Note { text } => write!(f, "note {text:?}"),
            Call::Record => f.write_str("request for a record"),
            Call::HandOver { text } => write!(f, "hand-over to {text:?}"),
            Call::Ordered { text } => write!(f, "order {text:?}"),
            Call::Memory { beyond: false } => f.write_str("request for the memory file"),
            Call::Memory { beyond: true } => f.write_str("request for the file of frames beyond RAM"),
            Call::Map { gfn, write: false } => write!(f, "mapping of frame {gfn}"),
            Call::Map { gfn, write: true } => write!(f, "mapping of frame {gfn} for writing"),
            Call::Registers { vcpu } => write!(f, "read of the registers of vCPU {vcpu}"),
            Call::SetRegisters { vcpu, .. } => write!(f, "write of the registers of vCPU {vcpu}"),
            Call::Pause => f.write_str("pause"),
            Call::Unpause => f.write_str("unpause"),
            Call::Translate { vcpu, cr3, address } => {
                write!(f, "translation of {address} {}", Space { vcpu: *vcpu, cr3: *cr3 })
            }
            Call::ReadLinear { vcpu, cr3, address, len } => {
                write!(f, "read of {len} bytes at {address} {}", Space { vcpu: *vcpu, cr3: *cr3 })
            }
            Call::WriteLinear { vcpu, cr3, address, bytes } => {
                write!(f, "write of {} bytes at {address} {}", bytes.len(), Space { vcpu: *vcpu, cr3: *cr3 })
            }
            Call::SetBreakpoint { gfn, offset, .. } => write!(f, "breakpoint at frame {gfn} offset {offset:#x}"),
            Call::ClearBreakpoint { gfn, offset } => write!(f, "end of a breakpoint at frame {gfn} offset {offset:#x}"),
            Call::Breakpoints { first } => write!(f, "list of breakpoints from {first} on"),
        }
    }
}

/// The arguments of a call about a linear address.
fn linear(vcpu: VcpuId, cr3: Option<u64>, address: Gla, len: u16) -> [u64; 5] {
    [u64::from(vcpu.0), cr3.unwrap_or(OWN), address.0, u64::from(len), 0]
}
