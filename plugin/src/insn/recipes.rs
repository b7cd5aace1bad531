//! The recipes of all translated blocks, in memory that goes only when QEMU has no block.
//!
//! Those of neighbouring instructions lie side by side: a recipe is read before every run of its instruction, and what the gate
//! costs is mostly the cache lines that it touches.

#![allow(unsafe_code, reason = "recipes live from translation to flush, which no type can say")]

use crate::insn::block_start::BlockStart;
use crate::insn::quick::QuickRecipe;
use crate::insn::recipe::Recipe;
use crate::insn::stop_point::StopPoint;
use crate::insn::subject::Subject;
use std::sync::{Mutex, PoisonError};

/// Recipes a chunk; a chunk never grows beyond, so that what is in it never moves.
const CHUNK: usize = 1024;

/// The recipes of instructions with one plain operand.
pub static QUICK: Arena<QuickRecipe> = Arena(Mutex::new(Vec::new()));
/// All others.
pub static OTHERS: Arena<Recipe> = Arena(Mutex::new(Vec::new()));

/// The starts of blocks whose fetch is checked.
pub static STARTS: Arena<BlockStart> = Arena(Mutex::new(Vec::new()));

/// Instructions before which vCPUs stop.
pub static STOPS: Arena<StopPoint> = Arena(Mutex::new(Vec::new()));

/// Instructions whose predictions are verified.
pub static SUBJECTS: Arena<Subject> = Arena(Mutex::new(Vec::new()));

/// Recipes of one kind.
#[derive(Debug)]
pub struct Arena<T: 'static>(Mutex<Vec<Vec<T>>>);

impl<T> Arena<T> {
    /// Keeps a recipe until the next flush.
    pub fn keep(&'static self, recipe: T) -> &'static T {
        let mut chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            chunks.push(Vec::with_capacity(CHUNK));
        }
        let index = chunks.len() - 1;
        let chunk = &mut chunks[index];
        let at = chunk.len();
        chunk.push(recipe);
        // SAFETY: the element was just made; the chunk has room for all it will ever hold, so it stays where it is until `free`,
        // and nobody else is given a mutable reference to it.
        unsafe { &*chunk.as_ptr().add(at) }
    }

    /// Each of them.
    pub fn for_each(&self, call: impl FnMut(&T)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().for_each(call);
    }

    /// Frees all recipes. QEMU has flushed its blocks, which it does only while no vCPU runs one, so nobody holds a reference
    /// that `keep` gave.
    pub fn free(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
