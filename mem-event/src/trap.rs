//! What a client has delivered to a vCPU: an exception or interrupt (Xen's `struct x86_event`).

use crate::table::table;
use bincode::{Decode, Encode};

table! {
    /// What an injected trap is delivered as, with the numbers of `X86_EVENTTYPE_*`.
    pub enum TrapKind {
        /// An external interrupt.
        Interrupt = 0 "interrupt",
        /// The interrupt that cannot be masked.
        Nmi = 2 "nmi",
        /// A fault or trap of the processor's.
        Exception = 3 "exception",
        /// `int n`, two bytes long: its gate is checked against the privilege level, and the guest comes back behind it.
        SoftwareInterrupt = 4 "software-interrupt",
        /// `int1`: one byte.
        PrivilegedSoftwareException = 5 "privileged-software-exception",
        /// `int3` or `into`: one byte.
        SoftwareException = 6 "software-exception",
    }
}

impl TrapKind {
    /// Bytes of the instruction that raises it; 0 of what none does.
    #[must_use]
    pub const fn instruction_length(self) -> u8 {
        match self {
            TrapKind::Interrupt | TrapKind::Nmi | TrapKind::Exception => 0,
            TrapKind::SoftwareInterrupt => 2,
            TrapKind::PrivilegedSoftwareException | TrapKind::SoftwareException => 1,
        }
    }

    /// One of this kind with a vector, as one number.
    #[must_use]
    pub const fn packed(self, vector: u8) -> u32 {
        vector as u32 | (self as u32) << 8
    }

    /// The other way round; what is no kind of a trap is an exception.
    pub(crate) const fn unpacked(number: u32) -> (u8, TrapKind) {
        let kind = match TrapKind::from_number((number >> 8 & 0xff) as u8) {
            Some(kind) => kind,
            None => TrapKind::Exception,
        };
        ((number & 0xff) as u8, kind)
    }
}

/// An exception or interrupt that is delivered to a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Trap {
    /// Its vector.
    pub vector: u8,
    /// What it is delivered as.
    pub kind: TrapKind,
    /// Its error code, where its vector has one.
    pub error: Option<u32>,
    /// What CR2 is then, for vector 14.
    pub cr2: u64,
}
