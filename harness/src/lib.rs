//! Boots guests under QEMU, runs consumers of `mem_event` rings against them, keeps the sequences as text.

pub mod amount;
pub mod cpio;
pub mod folder;
pub mod guest;
pub mod linux;
pub mod qemu;
pub mod qmp;
pub mod range;
pub mod refusal;
pub mod signals;
pub mod spawn;
pub mod symbols;
pub mod verdict;
