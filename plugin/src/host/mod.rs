//! What the engine's effects act on, and what is known of each vCPU.
//!
//! Nothing here knows the engine: whatever holds it may use all of this, and cannot come to want it a second time.

pub mod alarm;
pub mod changed_code;
mod checked;
pub mod checkpoints;
pub mod domain_host;
mod dropping;
pub mod explain;
pub mod gate_in_force;
pub mod implicit_access;
pub mod instruction;
pub mod instrumentation;
mod left;
pub mod nested;
pub mod notification;
pub mod parts;
pub mod patience;
pub mod processor;
pub mod shown;
pub mod state;
pub mod swapped;
pub mod thread;
pub mod touch;
pub mod trap_data;
mod turns;
pub mod vcpu;
pub mod waiter;
pub mod waiting;
pub mod watched;
pub mod witness;
pub mod word;
