//! The atomics of the shared page: the processor's, or loom's where the crate is built with `--cfg loom` to have every
//! order of their effects tried (`tests/memory_order.rs`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, fence};
