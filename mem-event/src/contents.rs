//! Contents of frames that a pager hands over in shared memory: a page-in without a call on the control connection. The memory lies
//! behind the paging ring's page in the same file; a consumer that does not map it sends [`crate::message::Call::Load`] instead.
//!
//! The consumer writes entry and content of load number n at place n modulo [`PLACES`], then stores n + 1 as
//! [`crate::page::Index::Loads`], then pushes its response. The thread that takes responses does the loads first, in their order, and writes
//! what became of each. Xen hands over one buffer a page-in, `xen_mem_paging_op.buffer` (xen/include/public/memory.h).
//!
//! ```text
//!     0  64 entries: u64 gfn, u32 result (0: not taken yet, 1: done or unused, else the error number plus 1), u32 zero
//!  1024  zero
//!  4096  64 contents of 4096 bytes
//! ```
//! As in the ring page everything is an atomic: what the other side writes meanwhile is torn at worst.
#![allow(unsafe_code, reason = "the boundary to memory that another process writes")]

use crate::atomics::{AtomicU32, AtomicU64};
use crate::errno::Errno;
use crate::number::{Gfn, PAGE_SIZE};
use crate::page::{Mapping, RingPage, sealed_file};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Loads that can be under way; as many as the paging ring can have slots.
pub const PLACES: u32 = if cfg!(loom) { 1 } else { 64 };
const WORDS: usize = PAGE_SIZE / 8;

#[repr(C)]
struct Entry {
    gfn: AtomicU64,
    result: AtomicU32,
    zero: AtomicU32,
}

#[repr(C, align(4096))]
struct Entries([Entry; PLACES as usize]);

#[repr(C, align(4096))]
struct Area {
    entries: Entries,
    contents: [[AtomicU64; WORDS]; PLACES as usize],
}

/// Bytes that it takes of the file, from the second page on.
const LENGTH: usize = size_of::<Area>();
const _: () = assert!(cfg!(loom) || LENGTH == (1 + PLACES as usize) * PAGE_SIZE);

/// A handle to the area; a clone is another handle to the same bytes.
#[derive(Clone)]
pub struct Contents {
    mapping: Arc<Mapping>,
}

impl Contents {
    /// A zeroed ring page with the area behind it in a new memory file whose size is sealed.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn create() -> io::Result<(OwnedFd, RingPage, Contents)> {
        let file = sealed_file(PAGE_SIZE + LENGTH)?;
        let (page, contents) = (RingPage::map(&file)?, Contents::map(&file)?);
        // Every place is free: nothing is under way there.
        (0..PLACES).for_each(|number| contents.finish(number, Ok(())));
        Ok((file, page, contents))
    }

    /// Maps the area of a ring's file.
    ///
    /// # Errors
    /// `InvalidInput` for a file without one, or whose size is not sealed. Else what the kernel refuses.
    pub fn map(file: impl AsFd) -> io::Result<Contents> {
        Ok(Contents { mapping: Arc::new(Mapping::of(file, PAGE_SIZE, LENGTH)?) })
    }

    fn area(&self) -> &Area {
        // SAFETY: the mapping is live, page-aligned, of this length and sealed against shrinking; `Area` is atomics only, for which
        // every byte pattern is valid and writes by others are no data races.
        unsafe { self.mapping.address().cast::<Area>().as_ref() }
    }

    fn entry(&self, number: u32) -> &Entry {
        &self.area().entries.0[(number % PLACES) as usize]
    }

    fn content(&self, number: u32) -> &[AtomicU64; WORDS] {
        &self.area().contents[(number % PLACES) as usize]
    }

    /// The consumer's: writes a load to its place. Nobody takes it before the count says so.
    pub fn put(&self, number: u32, gfn: Gfn, content: &[u8; PAGE_SIZE]) {
        let entry = self.entry(number);
        entry.gfn.store(gfn.0.to_le(), Ordering::Relaxed);
        entry.result.store(0, Ordering::Relaxed);
        for (word, bytes) in self.content(number).iter().zip(content.as_chunks().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// The consumer's: what became of a load; nothing until it was taken. A number that is no error of this interface reads as
    /// `EINVAL`.
    #[must_use]
    pub fn result(&self, number: u32) -> Option<Result<(), Errno>> {
        match u32::from_le(self.entry(number).result.load(Ordering::Acquire)) {
            0 => None,
            1 => Some(Ok(())),
            other => Some(Err(u8::try_from(other - 1).ok().and_then(Errno::from_number).unwrap_or(Errno::EINVAL))),
        }
    }

    /// The engine's: a load, each of its words read once.
    #[must_use]
    pub fn take(&self, number: u32) -> (Gfn, Box<[u8; PAGE_SIZE]>) {
        let mut content = Box::new([0; PAGE_SIZE]);
        for (word, bytes) in self.content(number).iter().zip(content.as_chunks_mut().0) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        (Gfn(u64::from_le(self.entry(number).gfn.load(Ordering::Relaxed))), content)
    }

    /// The engine's: what became of it.
    pub fn finish(&self, number: u32, result: Result<(), Errno>) {
        let value = result.map_or_else(|errno| errno as u32 + 1, |()| 1);
        self.entry(number).result.store(value.to_le(), Ordering::Release);
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}
