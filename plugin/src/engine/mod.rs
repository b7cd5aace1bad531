//! The engine under its lock: one step at a time, recorded, with its effects carried out.

mod control;
pub mod effects;
pub mod facts;
pub mod held;
pub mod hypervisor;
pub mod spool;
pub mod stopped;
