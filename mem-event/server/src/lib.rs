//! A hypervisor's side of the control socket and of the rings' event channels. Nothing here knows what runs the guest.
//!
//! | file | what lives there |
//! |---|---|
//! | [`answer`] | the reply that an outcome becomes |
//! | [`chaos`] | faults into a consumer's world |
//! | [`packet`] | packets with descriptors, sent and received |
//! | `peer` | the process at the other end, and whether there is room for it |
//! | `listener` | the socket that is found by its path |
//! | `pins` | the foreign mappings of a connection |
//! | `pauses` | how often a connection has paused the domain |
//! | `linear` | calls about linear addresses |
//! | [`page_file`] | a pager's page file, kept for its successor |
//! | [`breakpoints`] | whose breakpoint is where |
//! | [`kept`] | what outlives a connection, and what connections have between them |
//! | [`subscribers`] | the clients that hear notices |
//! | [`event_channel`] | the engine's end of a ring's event channel |
//! | [`reports`] | what an engine tells of itself, as replies |
//! | [`hypercalls`] | what a domain does for its clients |
//! | [`connection`] | one connection: calls in, replies out |

pub mod answer;
pub mod breakpoints;
pub mod chaos;
pub mod connection;
pub mod event_channel;
pub mod hypercalls;
pub mod kept;
pub mod linear;
mod listener;
pub mod packet;
pub mod page_file;
pub mod pauses;
mod peer;
mod pins;
pub mod reports;
pub mod subscribers;

pub use chaos::Chaos;
pub use connection::Connection;
pub use event_channel::EventChannel;
pub use hypercalls::Hypercalls;
pub use kept::Kept;
pub use listener::Listener;
pub use peer::Peer;
pub use subscribers::Subscribers;
