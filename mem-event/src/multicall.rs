//! Calls that a consumer hands over in shared memory: a page-in with its content, rights of a frame, bytes of one, single steps, without a packet on the
//! control connection and without a thread that has to be woken for it. The memory lies behind the ring's page in the same file; a consumer
//! that does not map it makes the same [`Call`]s on its connection. Xen's `multicall` (xen/include/public/xen.h, `multicall_entry`) is a
//! list of calls with a place for each one's result too; a content stands where Xen has `xen_mem_paging_op.buffer`.
//!
//! The consumer writes call number n at place n modulo [`PLACES`], then stores n + 1 as [`crate::page::Index::Calls`], then pushes its response. The
//! thread that takes responses does the calls first, in their order, and writes what became of each.
//!
//! ```text
//!     0  64 entries of 64 bytes: u16 operation, u16 bytes of payload in the entry, u32 result (0: not taken yet, 1: done or unused,
//!        else the error number plus 1), five u64 arguments, 16 bytes of payload; operation, arguments and payload as on the connection
//!  4096  on the paging ring alone 64 contents of 4096 bytes, each the payload of a load at its place
//! ```
//! As in the ring page everything is an atomic: what the other side writes meanwhile is torn at worst.
#![allow(unsafe_code, reason = "the boundary to memory that another process writes")]

use crate::atomics::{AtomicU32, AtomicU64};
use crate::control::{Control, Ring};
use crate::errno::Errno;
use crate::message::{Call, Malformed, Parts};
use crate::number::{Gfn, PAGE_SIZE};
use crate::page::{Mapping, RingPage, sealed_file};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Calls that can be under way; as many as a ring can have slots.
pub const PLACES: u32 = if cfg!(loom) { 1 } else { 64 };
/// Bytes of payload that an entry has room for.
pub const INLINE: usize = 16;
/// Frames whose rights are set by one call that is handed over: whoever takes it has the guest wait for it.
pub const MOST_FRAMES: u64 = 64;
/// The number of [`Call::Load`].
const LOAD: u16 = 7;
const WORDS: usize = PAGE_SIZE / 8;

#[repr(C)]
struct Entry {
    /// The operation, and above it how many bytes of payload the entry holds.
    head: AtomicU32,
    result: AtomicU32,
    arguments: [AtomicU64; 5],
    payload: [AtomicU64; INLINE / 8],
}

#[repr(C, align(4096))]
struct Entries([Entry; PLACES as usize]);

#[repr(C, align(4096))]
struct Contents([[AtomicU64; WORDS]; PLACES as usize]);

/// Bytes that the entries take of the file, from the second page on, and the contents behind them.
const ENTRIES: usize = size_of::<Entries>();
const CONTENTS: usize = size_of::<Contents>();
const _: () = assert!(cfg!(loom) || (ENTRIES == PAGE_SIZE && CONTENTS == PLACES as usize * PAGE_SIZE));

/// A handle to the area; a clone is another handle to the same bytes.
#[derive(Clone)]
pub struct Multicall {
    mapping: Arc<Mapping>,
    has_contents: bool,
}

impl Multicall {
    /// A zeroed ring page with the area behind it in a new memory file whose size is sealed.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn create(ring: Ring) -> io::Result<(OwnedFd, RingPage, Multicall)> {
        let file = sealed_file(PAGE_SIZE + length(ring))?;
        let (page, calls) = (RingPage::map(&file)?, Multicall::map(&file, ring)?);
        // Every place is free: nothing is under way there.
        (0..PLACES).for_each(|number| calls.finish(number, Ok(())));
        Ok((file, page, calls))
    }

    /// Maps the area of a ring's file.
    ///
    /// # Errors
    /// `InvalidInput` for a file without one, or whose size is not sealed. Else what the kernel refuses.
    pub fn map(file: impl AsFd, ring: Ring) -> io::Result<Multicall> {
        let mapping = Arc::new(Mapping::of(file, PAGE_SIZE, length(ring))?);
        Ok(Multicall { mapping, has_contents: has_contents(ring) })
    }

    fn entry(&self, number: u32) -> &Entry {
        // SAFETY: the mapping is live, page-aligned, of this length at least and sealed against shrinking; `Entries` is atomics only, for
        // which every byte pattern is valid and writes by others are no data races.
        let entries = unsafe { self.mapping.address().cast::<Entries>().as_ref() };
        &entries.0[(number % PLACES) as usize]
    }

    fn content(&self, number: u32) -> Option<&[AtomicU64; WORDS]> {
        // SAFETY: as above; where there are contents they lie behind the entries, in the same mapping.
        let contents =
            self.has_contents.then(|| unsafe { self.mapping.address().byte_add(ENTRIES).cast::<Contents>().as_ref() });
        contents.map(|contents| &contents.0[(number % PLACES) as usize])
    }

    /// The consumer's: writes a page-in with its content to its place. False where the ring has no contents.
    #[must_use]
    pub fn put_load(&self, number: u32, gfn: Gfn, content: &[u8; PAGE_SIZE]) -> bool {
        self.put_parts(number, (LOAD, [gfn.0, 0, 0, 0, 0], content))
    }

    /// The consumer's: writes a call to its place; nobody takes it before the count says so. False where there is no room for its payload.
    #[must_use]
    pub fn put(&self, number: u32, call: &Call) -> bool {
        self.put_parts(number, call.parts())
    }

    fn put_parts(&self, number: u32, (operation, arguments, payload): Parts<'_>) -> bool {
        let entry = self.entry(number);
        let (at, inline): (&[AtomicU64], _) = match self.content(number) {
            Some(content) if operation == LOAD => (content, 0),
            _ if payload.len() <= INLINE => (&entry.payload, payload.len()),
            _ => return false,
        };
        let head = u32::from(operation) | u32::try_from(inline).unwrap_or_default() << 16;
        entry.head.store(head.to_le(), Ordering::Relaxed);
        entry.result.store(0, Ordering::Relaxed);
        for (place, argument) in entry.arguments.iter().zip(arguments) {
            place.store(argument.to_le(), Ordering::Relaxed);
        }
        let (whole, rest) = payload.as_chunks();
        for (word, bytes) in at.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if let Some(word) = at.get(whole.len()).filter(|_| !rest.is_empty()) {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            word.store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
        true
    }

    /// The consumer's: what became of a call; nothing until it was taken. A number that is no error of this interface reads as
    /// `EINVAL`.
    #[must_use]
    pub fn result(&self, number: u32) -> Option<Result<(), Errno>> {
        match u32::from_le(self.entry(number).result.load(Ordering::Acquire)) {
            0 => None,
            1 => Some(Ok(())),
            other => Some(Err(u8::try_from(other - 1).ok().and_then(Errno::from_number).unwrap_or(Errno::EINVAL))),
        }
    }

    /// The engine's: a call, each of its words read once.
    ///
    /// # Errors
    /// What stands there is none; what is wrong.
    pub fn take(&self, number: u32) -> Result<Call, Malformed> {
        let entry = self.entry(number);
        let head = u32::from_le(entry.head.load(Ordering::Relaxed));
        let [operation, inline] = [head & 0xffff, head >> 16].map(|half| u16::try_from(half).unwrap_or_default());
        let arguments = std::array::from_fn(|at| u64::from_le(entry.arguments[at].load(Ordering::Relaxed)));
        let (words, length): (&[AtomicU64], _) = match self.content(number) {
            Some(content) if operation == LOAD => (content, PAGE_SIZE),
            _ if usize::from(inline) <= INLINE => (&entry.payload, inline.into()),
            _ => return Err(Malformed(format!("{inline} bytes in an entry, which has room for {INLINE}"))),
        };
        let mut payload = vec![0; 8 * words.len()];
        for (bytes, word) in payload.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        payload.truncate(length);
        if operation == LOAD && payload.len() == PAGE_SIZE {
            // As `from_parts` has it, without another copy.
            return Ok(Call::Load { gfn: Gfn(arguments[0]), content: payload.into() });
        }
        Call::from_parts(operation, arguments, &payload)
    }

    /// The engine's: what became of it.
    pub fn finish(&self, number: u32, result: Result<(), Errno>) {
        let value = result.map_or_else(|errno| errno as u32 + 1, |()| 1);
        self.entry(number).result.store(value.to_le(), Ordering::Release);
    }
}

/// Whether a call may be handed over: it is short, gives nothing back, and whoever takes responses can do it at once.
#[must_use]
pub fn takes(call: &Call) -> bool {
    match call {
        Call::Load { .. } | Call::WriteFrame { .. } => true,
        Call::Control(Control::SetAccess { count, .. } | Control::SetViewAccess { count, .. }) => *count <= MOST_FRAMES,
        Call::Control(Control::SingleStep { .. }) => true,
        _ => false,
    }
}

fn has_contents(ring: Ring) -> bool {
    ring == Ring::Paging
}

fn length(ring: Ring) -> usize {
    if has_contents(ring) { ENTRIES + CONTENTS } else { ENTRIES }
}

impl fmt::Debug for Multicall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multicall").finish_non_exhaustive()
    }
}
