//! The recipes of all translated blocks, in memory that goes only when QEMU has no block.

#![allow(unsafe_code, reason = "recipes live from translation to flush, which no type can say")]

use std::any::Any;
use std::sync::{Mutex, PoisonError};

/// Addresses of leaked boxes: a box that is moved around while it is borrowed would not be sound.
static KEPT: Mutex<Vec<Leaked>> = Mutex::new(Vec::new());

struct Leaked(*mut (dyn Any + Send + Sync));

// SAFETY: what it points to is Send, and it alone owns that.
unsafe impl Send for Leaked {}

/// Keeps a recipe until the next flush.
pub fn keep<T: Send + Sync + 'static>(recipe: T) -> &'static T {
    let leaked: *mut T = Box::into_raw(Box::new(recipe));
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(Leaked(leaked));
    // SAFETY: just made; freed by `free` alone.
    unsafe { &*leaked }
}

/// Frees all recipes: QEMU has flushed its blocks.
pub fn free() {
    for leaked in KEPT.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // SAFETY: leaked by `keep`, and freed once. QEMU flushes its blocks only while no vCPU runs one, so nobody holds the
        // reference that `keep` gave.
        drop(unsafe { Box::from_raw(leaked.0) });
    }
}
