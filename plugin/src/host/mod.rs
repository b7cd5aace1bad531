//! What the engine's effects act on, and what is known of each vCPU.

pub mod event_channel;
pub mod explain;
pub mod implicit_access;
pub mod instrumentation;
pub mod vcpu;
pub mod word;
