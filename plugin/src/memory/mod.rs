//! Guest memory: where it is, taking pages out of QEMU's mapping and putting them back, frames that show one page.

pub mod beyond;
pub mod command_line;
pub mod file_tables;
pub mod machine;
pub mod map;
pub mod mapping;
mod present;
pub mod remap;
pub mod shares;
pub mod sharing;
pub mod unsupported;
pub mod userfault;
