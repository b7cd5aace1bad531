//! Everything that touches QEMU: the plugin API's functions, the direct view of the CPU state and the way out of a translation
//! block.

#![allow(unsafe_code, reason = "the boundary to QEMU; each block is argued")]

pub mod alone;
pub mod apart;
pub mod api;
pub mod block;
pub mod capabilities;
pub mod current;
pub mod declared;
pub mod delivery;
pub mod fields;
pub mod file;
pub mod internals;
pub mod layout;
pub mod leaving;
mod nested;
mod operations;
pub mod outside;
pub mod passing;
pub mod program;
pub mod proof;
pub mod raising;
pub mod register;
pub mod request;
mod setting;
pub mod source;
mod tables;
pub mod unfinished;
pub mod unwinding;
mod vector;
pub mod version;
pub mod view;
