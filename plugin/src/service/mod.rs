//! The outside: the control socket, which processes may call, event channels, faults of userfaultfd.

mod client;
mod follow;
mod page_file;
mod peer;
pub mod thread;
