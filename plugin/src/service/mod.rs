//! The outside: the control socket, who may call, event channels, faults of userfaultfd.

mod client;
mod follow;
mod peer;
pub mod thread;
