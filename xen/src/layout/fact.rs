//! What the tables say of Xen's headers.

/// One thing that a C compiler can confirm.
#[derive(Clone, Copy, Debug)]
pub enum Fact {
    /// A structure's size.
    Size {
        /// Its name in C.
        structure: &'static str,
        /// In bytes.
        bytes: usize,
    },
    /// Where a member lies, and how long it is.
    Member {
        /// The structure's name in C.
        structure: &'static str,
        /// The member's, with those that it lies in.
        member: &'static str,
        /// In bytes, from the structure's beginning.
        offset: usize,
        /// In bytes.
        bytes: usize,
    },
    /// A number.
    Number {
        /// Its name in C.
        name: &'static str,
        /// What it is.
        value: u64,
    },
}
