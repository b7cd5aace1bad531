//! Read, write, execute; and Xen's ten access types (`p2m_access_t`).

use crate::table::table;
use bincode::{Decode, Encode};
use std::fmt;

/// A set of read, write and execute, used both for rights held and for rights wanted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
pub struct Rights(u8);

impl Rights {
    /// Nothing.
    pub const NONE: Rights = Rights(0);
    /// Read; bit 0, as in `access_r`.
    pub const R: Rights = Rights(1);
    /// Write; bit 1, as in `access_w`.
    pub const W: Rights = Rights(2);
    /// Execute; bit 2, as in `access_x`.
    pub const X: Rights = Rights(4);
    /// Read and write.
    pub const RW: Rights = Rights(3);
    /// Read, write and execute.
    pub const RWX: Rights = Rights(7);

    /// From the low three bits (r = 1, w = 2, x = 4); higher bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Rights {
        Rights(bits & 7)
    }

    /// The bits r = 1, w = 2, x = 4.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every right of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Rights) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }

    /// What is in both sets.
    #[must_use]
    pub const fn intersection(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }

    /// The rights of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Rights) -> Rights {
        Rights(self.0 & !other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (right, letter) in [(Rights::R, 'r'), (Rights::W, 'w'), (Rights::X, 'x')] {
            write!(f, "{}", if self.contains(right) { letter } else { '-' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

table! {
    /// The access rights of a frame with Xen's numbers (`p2m_access_t`, `XENMEM_access_*`).
    #[derive(Default)]
    pub enum AccessType {
        /// No access.
        N = 0 "n",
        /// Read only.
        R = 1 "r",
        /// Write only.
        W = 2 "w",
        /// Read and write.
        Rw = 3 "rw",
        /// Execute only.
        X = 4 "x",
        /// Read and execute.
        Rx = 5 "rx",
        /// Write and execute.
        Wx = 6 "wx",
        /// Everything.
        #[default]
        Rwx = 7 "rwx",
        /// Read and execute; a write makes the page `Rw` without an event.
        Rx2rw = 8 "rx2rw",
        /// Nothing; the first access makes the page `Rwx` and is reported without stopping the vCPU.
        N2rwx = 9 "n2rwx",
    }
}

impl AccessType {
    /// The rights that pass without a violation (the table of xen/arch/x86/hvm/hvm.c, `hvm_hap_nested_page_fault`).
    #[must_use]
    pub fn rights(self) -> Rights {
        match self {
            AccessType::N | AccessType::N2rwx => Rights::NONE,
            AccessType::Rx2rw => Rights::from_bits(5),
            plain => Rights::from_bits(plain as u8),
        }
    }

    /// The type that lets these pass too, and nothing else.
    #[must_use]
    pub fn with(self, rights: Rights) -> AccessType {
        AccessType::from_number(self.rights().union(rights).bits()).unwrap_or_default()
    }

    /// The type that lets these pass no longer, and else what passes now.
    #[must_use]
    pub fn without(self, rights: Rights) -> AccessType {
        AccessType::from_number(self.rights().without(rights).bits()).unwrap_or_default()
    }
}

impl std::str::FromStr for AccessType {
    type Err = String;

    fn from_str(text: &str) -> Result<AccessType, String> {
        AccessType::from_name(text)
            .ok_or_else(|| format!("no access type {text:?}; one of n r w rw x rx wx rwx rx2rw n2rwx"))
    }
}
