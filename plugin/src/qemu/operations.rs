//! What the loop of a vCPU calls of its processor's: the table that the class of the vCPUs points to (`TCGCPUOps`), in which functions can be put
//! in the place of QEMU's.
//!
//! QEMU's own table is constant. A copy takes its place, whose words are exchanged from then on. Where the class points to it proves itself: the
//! class has exactly one word from which two functions that QEMU exports are found side by side within a table's length.

use super::capabilities::symbol;
use super::fields::Memory;
use super::internals::{Cpu, cpu_of};
use std::ffi::c_void;
use std::ptr::with_exposed_provenance_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Words of a class that are looked at: that of the vCPUs has some sixty before those of its models.
const CLASS: usize = 96;
/// Words of a table: it has some twenty. What follows it in QEMU's data is copied and never read.
const TABLE: usize = 48;
/// How far from a table's begin a function may stand.
const FARTHEST: usize = 24;

/// A word of the copy.
type Word = AtomicPtr<c_void>;

/// QEMU's table, and the copy that the class points to.
struct Table {
    own: Vec<*mut c_void>,
    copy: &'static [Word],
}

// SAFETY: QEMU's words are addresses of functions, which any thread may call; the copy's are atomic.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// Puts a function in the place of the one that QEMU exports under that address, from now on: a vCPU calls the one or the other meanwhile. Says
/// whether it could; once a vCPU is there.
#[must_use]
pub(super) fn put(own: *mut c_void, other: *mut c_void) -> bool {
    let Some(table) = table() else { return false };
    let mut places = table.own.iter().take(FARTHEST).zip(table.copy).filter(|(word, _)| **word == own);
    let (Some((_, place)), None) = (places.next(), places.next()) else { return false };
    place.store(other, Ordering::Release);
    true
}

fn table() -> Option<&'static Table> {
    static FOUND: OnceLock<Option<Table>> = OnceLock::new();
    if FOUND.get().is_none() && cpu_of(0).is_none() {
        // No vCPU is there yet.
        return None;
    }
    FOUND.get_or_init(find).as_ref()
}

/// Looks for the word of the class, and puts a copy of its table there. All vCPUs of a machine are of one class.
fn find() -> Option<Table> {
    let Cpu(cpu) = cpu_of(0)?;
    let memory = Memory::own()?;
    let known = [symbol(c"x86_cpu_do_interrupt")?, symbol(c"x86_cpu_exec_interrupt")?];
    let pair = known.map(|function| Some(function as u64));
    let class = memory.word(cpu as u64)?;
    let leads = |at: &u64| {
        let table = memory.word(*at).unwrap_or(0);
        let word = |number: usize| memory.word(table.wrapping_add(8 * number as u64));
        table != 0 && (0..FARTHEST).any(|number| [word(number), word(number + 1)] == pair)
    };
    let mut places = (0..CLASS as u64).map(|number| class + 8 * number).filter(leads);
    let (Some(at), None) = (places.next(), places.next()) else { return None };
    let table = memory.word(at)?;
    let words = (0..TABLE as u64).map_while(|number| memory.word(table + 8 * number));
    let own: Vec<*mut c_void> = words.map(|word| with_exposed_provenance_mut(place_of(word))).collect();
    let copy: &'static [Word] = own.iter().map(|word| Word::new(*word)).collect::<Vec<_>>().leak();
    // SAFETY: a word of the class of the vCPUs, which lives as long as the process and holds the address of a table that is read alone. The
    // copy is as long, has the same words and lives as long.
    unsafe { Word::from_ptr(with_exposed_provenance_mut(place_of(at))) }
        .store(copy.as_ptr().cast_mut().cast(), Ordering::Release);
    Some(Table { own, copy })
}

/// An address of this process, whose words are as long.
fn place_of(address: u64) -> usize {
    usize::from_ne_bytes(address.to_ne_bytes())
}
