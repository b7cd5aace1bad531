//! What a slot holds that its layout does not know.

use crate::p2m::P2mType;
use std::fmt;

/// `VM_EVENT_INTERFACE_VERSION`.
pub const VERSION: u32 = 7;

/// Why a slot is no request of this layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The type field of `flags16`.
    Type(u32),
    /// The reason.
    Reason(u32),
    /// The p2m type.
    P2mType(u32),
    /// The offset in the frame.
    Offset(u64),
    /// The version of `vm_event`.
    Version(u32),
    /// The index of `vm_event`'s control register.
    Register(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Type(number) => write!(f, "{number} is no ring's type"),
            Malformed::Reason(number) => write!(f, "{number} is no reason on this ring"),
            Malformed::P2mType(number) => write!(f, "{number} is no p2m type"),
            Malformed::Offset(offset) => write!(f, "offset {offset:#x} is outside of a frame"),
            Malformed::Version(number) => write!(f, "vm_event version {number} is not {}", VERSION),
            Malformed::Register(number) => write!(f, "no event tells of a register {number}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// The type of a frame with this number.
///
/// # Errors
/// [`Malformed`], where no type has it.
#[inline(always)]
pub(super) fn p2m_type(number: u32) -> Result<P2mType, Malformed> {
    u8::try_from(number).ok().and_then(P2mType::from_number).ok_or(Malformed::P2mType(number))
}
