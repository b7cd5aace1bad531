//! What stops a vCPU before its instruction, and how it waits.

pub mod checkpoint;
pub mod delivery;
pub mod events;
pub mod exits;
pub mod fetch;
pub mod gate;
pub mod leave;
pub mod proof;
pub mod step;
pub mod translate;
pub mod verify;
mod wait;
