//! What a subscriber hears unasked.

use super::packet::{HEADER, Malformed, NOTICE, Packet};
use crate::argument::Argument;
use crate::control::Ring;
use crate::number::{Gpa, PAGE_SIZE, VcpuId};

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
    /// QEMU ends in order. One that is killed says nothing.
    Ended,
    /// The process that holds a ring is to be killed, and started anew: a fault that was asked for.
    Kill(Ring),
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
            Notice::Ended => (4, [0; 5], &[][..]),
            Notice::Kill(ring) => (5, [ring.number(), 0, 0, 0, 0], &[][..]),
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
            4 => Ok(Notice::Ended),
            5 => <Ring as Argument>::from_number(packet.arguments[0]).map(Notice::Kill).map_err(Malformed),
            other => Err(Malformed(format!("no notice {other}"))),
        }
    }
}
