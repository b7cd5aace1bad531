//! Page tables: the identity map of boot, and 4 KiB pages mapped where a guest wants them.
//!
//! Every entry has its accessed and dirty bits set from the start, so that a walk by the hardware only reads. Maps are
//! changed by one vCPU while the others do not use the same addresses: there is no shootdown.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::page::PAGE_SIZE;

/// The first address above the identity map at which guests map pages of their own: the 1 TiB line.
pub const FREE: u64 = 1 << 40;

/// Present.
const PRESENT: u64 = 1 << 0;
/// Writable.
const WRITABLE: u64 = 1 << 1;
/// Accessed and dirty.
const TOUCHED: u64 = 1 << 5 | 1 << 6;
/// A large page, in a page directory's entry.
const LARGE: u64 = 1 << 7;
/// The address bits of an entry.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

/// Tables for pages that guests map; a guest needs three or so per far-away address.
static POOL: [Table; 16] = [const { Table([const { AtomicU64::new(0) }; 512]) }; 16];
static POOL_USED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    /// Built by the boot code.
    static BOOT_PML4: Table;
}

/// What a mapped page may be used for; execution is always allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Read; a write is a guest page fault, since CR0.WP is set.
    Read,
    /// Read and write.
    ReadWrite,
}

/// Maps the page of `address` to `frame` (its guest-physical address), replacing what was there.
///
/// # Panics
/// If either is not a page boundary, or `address` is inside the identity map of large pages, or the pool is empty.
pub fn map(address: u64, frame: u64, usage: Use) {
    assert!(frame.is_multiple_of(PAGE_SIZE) && frame & !ADDRESS == 0, "{frame:#x} is not a frame");
    let writable = if usage == Use::ReadWrite { WRITABLE } else { 0 };
    entry(address, 0).store(frame | PRESENT | writable | TOUCHED, Ordering::Relaxed);
    forget(address);
}

/// Makes the page of `address` not present: the next touch is a guest page fault.
///
/// # Panics
/// As [`map`].
pub fn unmap(address: u64) {
    entry(address, 0).store(0, Ordering::Relaxed);
    forget(address);
}

/// The table of the first level: where a walk begins.
pub fn root() -> u64 {
    (&raw const BOOT_PML4).expose_provenance() as u64
}

/// Where the entry lies that a walk to `address` reads at this level, 3 in the root to 0 for the page, with the tables above it made
/// as needed.
///
/// # Panics
/// As [`map`].
pub fn place(address: u64, level: u32) -> u64 {
    core::ptr::from_ref(entry(address, level)).expose_provenance() as u64
}

/// Drops all of this vCPU's cached translations that are not global.
pub fn forget_all() {
    // SAFETY: only drops cached translations; the tables hold the truth.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) };
}

/// The entry of `address` at a level, with the tables above it made as needed.
fn entry(address: u64, level: u32) -> &'static AtomicU64 {
    assert!(address.is_multiple_of(PAGE_SIZE), "{address:#x} is not a page boundary");
    // SAFETY: defined by the boot code, one page, accessed only as atomics.
    let mut table = unsafe { &BOOT_PML4 };
    for above in (level + 1..=3).rev() {
        table = below(&table.0[index(address, above)]);
    }
    &table.0[index(address, level)]
}

/// The table that `entry` points to; taken from the pool when there is none.
fn below(entry: &AtomicU64) -> &'static Table {
    let value = entry.load(Ordering::Relaxed);
    assert!(value & LARGE == 0, "a large page is in the way");
    if value & PRESENT != 0 {
        let table = usize::try_from(value & ADDRESS).expect("addresses fit");
        // SAFETY: entries are made here or by the boot code, from whole tables that live forever and are identity mapped.
        return unsafe { &*core::ptr::with_exposed_provenance(table) };
    }
    let table = &POOL[POOL_USED.fetch_add(1, Ordering::Relaxed)];
    let address = core::ptr::from_ref(table).expose_provenance() as u64;
    entry.store(address | PRESENT | WRITABLE | TOUCHED, Ordering::Relaxed);
    table
}

fn index(address: u64, level: u32) -> usize {
    usize::try_from(address >> (12 + 9 * level) & 511).expect("9 bits")
}

/// Drops this vCPU's cached translation of `address`.
fn forget(address: u64) {
    // SAFETY: only drops a cached translation; the tables hold the truth.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}
