//! The shared ring page: the one place of this crate where memory is touched that another process may write at any time.
//!
//! There are no references to plain data in the page, only atomics: the four indices as 32-bit words whose orderings are
//! stated by the caller, the slots as relaxed 64-bit words. What a slot holds while its owner changes is torn at worst,
//! never undefined; the release store and acquire load of an index say when it is whole.
//!
//! ```text
//!    0  u32 req_prod     4  u32 req_event     8  u32 rsp_prod    12  u32 rsp_event
//!   16  u32 calls that the consumer has handed over, see [`Index::Calls`]
//!   20  44 bytes that belong to the consumer and that this crate's engine half never writes
//!   64  4032 bytes of slots
//! ```
#![allow(unsafe_code, reason = "the boundary to memory that another process writes")]

use crate::atomics::{AtomicU32, AtomicU64};
use crate::number::PAGE_SIZE;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes before the first slot.
pub const HEADER: usize = 64;
// Loom's atomics are large and slow: two slots are enough there.
const SLOT_WORDS: usize = if cfg!(loom) { 10 } else { (PAGE_SIZE - HEADER) / 8 };

/// One of the shared indices, by its place in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Index {
    /// Requests that the engine has made visible.
    ReqProd = 0,
    /// The consumer wants to hear of the request that makes `req_prod` this.
    ReqEvent = 1,
    /// Responses that the consumer has made visible.
    RspProd = 2,
    /// The engine wants to hear of the response that makes `rsp_prod` this.
    RspEvent = 3,
    /// How many calls the consumer has handed over in [`crate::multicall::Multicall`]; they take effect before the responses that
    /// it pushes from then on. Xen's consumers leave it 0.
    Calls = 4,
}

/// The bytes as atomics: index words and slot words never overlap, so no byte is accessed at two widths.
#[repr(C, align(4096))]
struct Words {
    header: [AtomicU32; HEADER / 4],
    slots: [AtomicU64; SLOT_WORDS],
}

const _: () = assert!(cfg!(loom) || size_of::<Words>() == PAGE_SIZE);

/// A shared mapping of a memory file whose size is sealed; it ends with this value.
pub(crate) struct Mapping {
    address: NonNull<c_void>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; what is read and written through it is its users' to argue.
unsafe impl Send for Mapping {}
// SAFETY: as above; what a shared `Mapping` gives out is an address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps so many bytes of the file, from this offset on.
    ///
    /// # Errors
    /// `InvalidInput` for a file that is shorter or whose size is not sealed: its owner could cut it, and the next access would be
    /// a SIGBUS. Else what the kernel refuses.
    pub fn of(fd: impl AsFd, offset: usize, length: usize) -> io::Result<Mapping> {
        let refuse = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("not a ring page: {why}"));
        match fcntl_get_seals(&fd) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
            Ok(_) => return Err(refuse("the memory file is not sealed against shrinking")),
            Err(_) => return Err(refuse("the file is no memory file")),
        }
        if u64::try_from(fstat(&fd)?.st_size).unwrap_or_default() < (offset + length) as u64 {
            return Err(refuse(&format!("the memory file is shorter than {} bytes", offset + length)));
        }
        if cfg!(loom) {
            return Err(refuse("loom's atomics cannot be mapped"));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing of this process is there.
        let address = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, fd, offset as u64) }?;
        let address = NonNull::new(address).ok_or_else(|| refuse("mapped at address 0"))?;
        Ok(Mapping { address, length })
    }

    /// Where it begins; page-aligned, and readable and writable for its whole length as long as this value lives.
    pub fn address(&self) -> NonNull<c_void> {
        self.address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `Mapping::of` with this length, and each user of it held this value. Nothing is left to
        // do about an error.
        let _ = unsafe { munmap(self.address.as_ptr(), self.length) };
    }
}

/// A new memory file of so many zeroed bytes, whose size is sealed.
pub(crate) fn sealed_file(length: usize) -> io::Result<OwnedFd> {
    let fd = memfd_create("mem-event-ring", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, length as u64)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// The page's owner: a leaked box, or a mapping.
struct Memory {
    words: NonNull<Words>,
    mapped: Option<Mapping>,
}

// SAFETY: the page is accessed through atomics only, and freed once, by whichever thread drops its last handle.
unsafe impl Send for Memory {}
// SAFETY: as above; what a shared `Memory` gives out is a `&Words`, which is atomics.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mapped.is_none() {
            // SAFETY: the pointer came from `Box::leak` in `RingPage::heap`, and its last handle is going.
            drop(unsafe { Box::from_raw(self.words.as_ptr()) });
        }
    }
}

/// A handle to one ring page of 4096 bytes; a clone is another handle to the same bytes.
#[derive(Clone)]
pub struct RingPage {
    memory: Arc<Memory>,
}

impl RingPage {
    /// A zeroed page of this process's own memory, for replay and tests.
    #[must_use]
    pub fn heap() -> RingPage {
        let words = Box::new(Words {
            header: std::array::from_fn(|_| AtomicU32::new(0)),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        RingPage { memory: Arc::new(Memory { words: NonNull::from(Box::leak(words)), mapped: None }) }
    }

    /// A zeroed page in a new memory file of exactly one page whose size is sealed: to hand to a consumer.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn create() -> io::Result<(OwnedFd, RingPage)> {
        let fd = sealed_file(PAGE_SIZE)?;
        let page = RingPage::map(&fd)?;
        Ok((fd, page))
    }

    /// Maps the first page of a memory file.
    ///
    /// # Errors
    /// `InvalidInput` for a file that is shorter than a page or whose size is not sealed: its owner could cut it, and the
    /// next access would be a SIGBUS. Else what the kernel refuses.
    pub fn map(fd: impl AsFd) -> io::Result<RingPage> {
        let mapping = Mapping::of(fd, 0, PAGE_SIZE)?;
        let words = mapping.address().cast::<Words>();
        Ok(RingPage { memory: Arc::new(Memory { words, mapped: Some(mapping) }) })
    }

    #[inline(always)]
    fn words(&self) -> &Words {
        // SAFETY: the pointer is to a live, page-aligned page that `self.memory` keeps; its size is sealed, so no access
        // faults; and `Words` is atomics only, so writes by others are no data races.
        unsafe { self.memory.words.as_ref() }
    }

    /// Loads an index.
    #[inline(always)]
    #[must_use]
    pub fn load(&self, index: Index, ordering: Ordering) -> u32 {
        u32::from_le(self.words().header[index as usize].load(ordering))
    }

    /// Stores an index.
    #[inline(always)]
    pub fn store(&self, index: Index, value: u32, ordering: Ordering) {
        self.words().header[index as usize].store(value.to_le(), ordering);
    }

    /// Copies `N` words of slot memory out, each once. Word 0 is at byte 64.
    #[inline(always)]
    #[must_use]
    pub fn read<const N: usize>(&self, first: usize) -> [u64; N] {
        let source = &self.words().slots[first..first + N];
        std::array::from_fn(|i| u64::from_le(source[i].load(Ordering::Relaxed)))
    }

    /// Writes words of slot memory, each once. Word 0 is at byte 64.
    #[inline(always)]
    pub fn write<const N: usize>(&self, first: usize, words: &[u64; N]) {
        let target = &self.words().slots[first..first + N];
        for (word, value) in target.iter().zip(words) {
            word.store(value.to_le(), Ordering::Relaxed);
        }
    }

    /// Writes one word of slot memory.
    #[inline(always)]
    pub fn write_word(&self, at: usize, value: u64) {
        self.words().slots[at].store(value.to_le(), Ordering::Relaxed);
    }

    /// Writes one 32-bit word of the header, 0 to 15: what a consumer may do, and a hostile one does.
    pub fn write_header(&self, at: usize, value: u32) {
        self.words().header[at].store(value.to_le(), Ordering::Relaxed);
    }

    /// `SHARED_RING_INIT` (xen/include/public/io/ring.h), which is the consumer's to do: both producers 0, both events 1,
    /// the rest of the header 0.
    pub fn init(&self) {
        for at in 0..HEADER / 4 {
            self.write_header(at, 0);
        }
        self.preset(0);
    }

    /// Sets the four indices of an empty ring whose counters stand at `index`.
    pub fn preset(&self, index: u32) {
        self.store(Index::ReqProd, index, Ordering::Relaxed);
        self.store(Index::ReqEvent, index.wrapping_add(1), Ordering::Relaxed);
        self.store(Index::RspEvent, index.wrapping_add(1), Ordering::Relaxed);
        self.store(Index::RspProd, index, Ordering::Release);
    }

    /// A copy of the whole page.
    #[must_use]
    pub fn bytes(&self) -> Box<[u8; PAGE_SIZE]> {
        let mut bytes = Box::new([0; PAGE_SIZE]);
        let words = self.words();
        let (header, slots) = bytes.split_at_mut(HEADER);
        for (bytes, word) in header.chunks_exact_mut(4).zip(&words.header) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        for (bytes, word) in slots.chunks_exact_mut(8).zip(&words.slots) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        bytes
    }
}

impl fmt::Debug for RingPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = |index| self.load(index, Ordering::Relaxed);
        f.debug_struct("RingPage")
            .field("mapped", &self.memory.mapped.is_some())
            .field("req_prod", &index(Index::ReqProd))
            .field("req_event", &index(Index::ReqEvent))
            .field("rsp_prod", &index(Index::RspProd))
            .field("rsp_event", &index(Index::RspEvent))
            .finish()
    }
}
