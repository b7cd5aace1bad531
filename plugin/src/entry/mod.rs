//! The door that QEMU comes in by: every `extern "C"` function, the safe halves of the shims, beginning and end. Nothing else sees
//! both QEMU and all rooms.

#![allow(unsafe_code, reason = "what QEMU calls takes pointers; each block is argued")]

mod callbacks;
mod install;
mod shim;
