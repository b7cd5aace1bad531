//! Which memory an instruction will touch, and where the guest's page tables lead: nothing here knows QEMU.

pub mod block_start;
pub mod bounds;
pub mod cache;
pub mod decode;
pub mod descriptor;
pub mod dialect;
pub mod elements;
pub mod far;
pub mod nested;
pub mod quick;
pub mod recipe;
pub mod recipes;
pub mod registers;
pub mod special;
pub mod state;
pub mod stop_point;
pub mod subject;
pub mod walk;
