//! Newtypes for every number with a unit, so that a frame is never taken for an address.

use bincode::{Decode, Encode};
use std::fmt;

/// Bytes in a guest frame and in a ring page.
pub const PAGE_SIZE: usize = 4096;

/// How many views a domain can have, the host's among them (`MAX_ALTP2M`).
pub const MOST_VIEWS: u16 = 10;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

number!(
    /// A guest frame number: a guest-physical address divided by [`PAGE_SIZE`].
    Gfn(u64)
);
impl Gfn {
    /// The number of no frame (`INVALID_GFN`).
    pub const INVALID: Gfn = Gfn(u64::MAX);
}

number!(
    /// A guest-physical address in bytes.
    Gpa(u64)
);
number!(
    /// A guest-linear address in bytes, after segmentation and before paging.
    Gla(u64)
);

/// A virtual CPU of the domain, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct VcpuId(pub u32);

impl fmt::Display for VcpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A table of access rights of the domain's, counted from the host's, which is 0 (Xen's index of an altp2m).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct ViewId(pub u16);

impl ViewId {
    /// Where rights are those of all vCPUs.
    pub const HOST: ViewId = ViewId(0);

    /// The numbers of all that a domain can have.
    pub(crate) fn all() -> impl Iterator<Item = ViewId> {
        (0..MOST_VIEWS).map(ViewId)
    }
}

impl fmt::Display for ViewId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Gpa {
    /// The frame that holds this address.
    #[must_use]
    pub fn gfn(self) -> Gfn {
        Gfn(self.0 >> 12)
    }

    /// The offset inside the frame, 0 to 4095.
    #[must_use]
    pub fn offset(self) -> u16 {
        (self.0 & 0xfff) as u16
    }
}

impl Gfn {
    /// The address of the frame's first byte.
    #[must_use]
    pub fn gpa(self) -> Gpa {
        Gpa(self.0 << 12)
    }
}
