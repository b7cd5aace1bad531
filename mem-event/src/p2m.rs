//! The type and the access rights of each guest frame.

use bincode::{Decode, Encode};

/// What a guest frame is, with the numbers that Xen puts on the wire (`p2m_type_t` from af518d3ea1 on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[repr(u8)]
pub enum P2mType {
    /// Ordinary memory with a frame.
    #[default]
    RamRw = 0,
    /// Nothing there: outside of RAM, or ballooned out.
    Invalid = 1,
    /// Memory whose writes are logged.
    RamLogdirty = 2,
    /// Memory that drops or faults writes.
    RamRo = 3,
    /// Emulated device.
    MmioDm = 4,
    /// Passed-through device.
    MmioDirect = 5,
    /// Memory that was never touched: the first touch takes a frame from the budget.
    PopulateOnDemand = 6,
    /// Grant mapping, writable.
    GrantMapRw = 7,
    /// Grant mapping, read only.
    GrantMapRo = 8,
    /// Nominated for eviction; the frame is still there.
    RamPagingOut = 9,
    /// Evicted; the content is the pager's.
    RamPaged = 10,
    /// Asked for; the pager has not answered yet.
    RamPagingIn = 11,
    /// One frame shared by several guest frames, write-protected.
    RamShared = 12,
    /// Broken memory.
    RamBroken = 13,
}
