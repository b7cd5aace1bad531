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
//!
//! | file | what lives there |
//! |---|---|
//! | `packet` | the header and the payload, told apart |
//! | `call`, `reply`, `notice` | what is asked, what is answered, what subscribers are told unasked |
//! | `breakpoint` | whose breakpoint is where |
//! | `report` | what a reply's payload tells of the domain, its vCPUs, its devices and its frames |

mod breakpoint;
mod call;
mod notice;
mod packet;
mod reply;
mod report;

pub use breakpoint::{BreakpointReport, Over};
pub(crate) use call::Parts;
pub use call::{Call, Space};
pub use notice::Notice;
pub use packet::{HEADER, LARGEST, Malformed};
pub use reply::Reply;
pub use report::{
    DeviceReport, Info, MonitorReport, RingReport, RingState, Stays, VcpuReport, VcpuState, frame_byte, frame_of_byte,
};

/// The protocol's version, checked by [`Call::Hello`].
pub const VERSION: u64 = 10;
