//! The engine under its lock: one step at a time, recorded, with its effects carried out on the host.

mod admit;
pub mod alone;
mod arriving;
mod control;
mod effects;
pub mod facts;
mod filling;
mod frames;
pub mod gone;
pub mod held;
pub mod hypervisor;
mod in_force;
pub mod kernel_stops;
pub mod leave;
mod multicall;
mod needed;
mod provoke;
mod provoked;
mod recorders;
mod reports;
mod reset;
mod rings;
mod settle;
pub mod spool;
pub mod step;
pub mod turn;
pub mod vcpus;
