//! The outside: the control socket, which processes may call, event channels, faults of userfaultfd.

mod clock;
mod follow;
mod hypercalls;
mod provoker;
pub mod thread;
