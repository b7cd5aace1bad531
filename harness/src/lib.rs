//! Boots guests under QEMU, runs consumers of `mem_event` rings against them, keeps the sequences as text.

pub mod act;
pub mod amount;
pub mod channel;
pub mod consumers;
pub mod cpio;
pub mod folder;
pub mod guest;
pub mod linux;
pub mod listener;
pub mod log;
pub mod pagefile;
pub mod pager;
pub mod qemu;
pub mod qmp;
pub mod range;
pub mod recent;
pub mod refusal;
pub mod resident;
pub mod scenario;
pub mod signals;
pub mod socket;
pub mod spawn;
pub mod symbols;
pub mod transcript;
pub mod verdict;
pub mod watch;
