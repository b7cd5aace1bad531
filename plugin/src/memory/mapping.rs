//! The guest's memory: one shared file, mapped in QEMU; which frame lies where in it; taking pages out and putting them back.

#![allow(
    unsafe_code,
    reason = "reads guest memory in place and takes pages out of QEMU's mapping; each block is argued"
)]

use crate::insn::walk::Tables;
use crate::memory::map::MemoryMap;
use crate::memory::remap::Remapper;
use crate::memory::shares::Shares;
use crate::memory::userfault::{UffdFault, Userfault, can_map_protected};
use mem_event::{Gfn, Gpa, PAGE_SIZE};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes in a page, as the kernel counts.
const PAGE: u64 = PAGE_SIZE as u64;

/// Guest memory.
#[derive(Debug)]
pub struct Memory {
    file: File,
    pub(crate) base: u64,
    pub(crate) size: u64,
    map: MemoryMap,
    userfault: OnceLock<Userfault>,
    /// With how many mappings the process had before.
    pub(crate) remapper: OnceLock<(Remapper, u64)>,
    /// A thread that reads the file by frames holds it while it reads, so that what it reads is the frame's, and waits for nothing
    /// else meanwhile.
    shares: RwLock<Shares>,
}

impl Memory {
    /// The memory whose file is mapped at `base` for `size` bytes.
    pub fn new(file: File, base: u64, size: u64, map: MemoryMap) -> Memory {
        let (userfault, remapper) = (OnceLock::new(), OnceLock::new());
        Memory { file, base, size, map, userfault, remapper, shares: RwLock::default() }
    }

    /// How the machine lays it out.
    pub fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// The file, for a process that maps frames of it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }

    /// Where a frame lies in the file, if it is RAM.
    pub fn offset(&self, gfn: Gfn) -> Option<u64> {
        self.map.offset(gfn).filter(|offset| *offset < self.size)
    }

    /// The frame at a host address, if it is guest memory.
    pub fn frame_at(&self, address: u64) -> Option<Gfn> {
        let offset = address.checked_sub(self.base).filter(|offset| *offset < self.size)?;
        self.map.frame(offset)
    }

    /// Where a frame lies in QEMU's mapping, if it is RAM.
    pub fn host_address(&self, gfn: Gfn) -> Option<u64> {
        self.offset(gfn).map(|offset| self.base + offset)
    }

    fn address(&self, gfn: Gfn) -> io::Result<u64> {
        self.host_address(gfn).ok_or_else(|| io::Error::other(format!("frame {gfn} is no RAM")))
    }

    /// The userfaultfd, opened and registered on first use. With `missing`, first touches of memory are reported too.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn userfault(&self, missing: bool) -> Result<&Userfault, String> {
        if self.userfault.get().is_none() {
            let _ = self.userfault.set(Userfault::open(self.base, self.size)?);
        }
        let userfault = self.userfault.get().ok_or("no userfaultfd")?;
        userfault
            .register(self.base, self.size, missing)
            .and_then(|()| match self.remapper.get() {
                // Its registration is what a frame gets that shows another page.
                Some((remapper, _)) => userfault.register(remapper.shadow(), self.size, missing),
                None => Ok(()),
            })
            .map_err(|error| format!("the guest's memory cannot be registered with userfaultfd: {error}"))?;
        Ok(userfault)
    }

    /// Who shows whose page.
    pub fn shares(&self) -> RwLockReadGuard<'_, Shares> {
        self.shares.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shares_mut(&self) -> RwLockWriteGuard<'_, Shares> {
        self.shares.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the thread of this fault was let go since that was read. With the engine held, by which alone threads are let go.
    pub fn is_old(&self, fault: &UffdFault) -> bool {
        self.userfault.get().is_some_and(|userfault| userfault.is_old(fault))
    }

    /// The userfaultfd, once there is one.
    pub fn opened_userfault(&self) -> Option<&Userfault> {
        self.userfault.get()
    }

    /// Takes frames out of QEMU's mapping; their content stays in the file. Without a userfaultfd nothing would be told of the next touch,
    /// and they stay.
    ///
    /// # Errors
    /// The kernel's error, or a frame that is no RAM.
    pub fn unmap(&self, first: Gfn, count: u64) -> io::Result<()> {
        if self.userfault.get().is_none() {
            return Ok(());
        }
        for (gfn, run) in self.map.runs_of(first, count) {
            let address = self.address(gfn)?;
            let length = usize::try_from(run * PAGE).map_err(io::Error::other)?;
            // SAFETY: the range is QEMU's mapping of guest RAM, which is shared: dropping its pages loses nothing. It is registered
            // with userfaultfd, so the next touch is reported.
            if unsafe { libc::madvise(address as *mut libc::c_void, length, libc::MADV_DONTNEED) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// How many frames it has.
    pub fn frames(&self) -> u64 {
        self.size / PAGE
    }

    /// Gives frames memory that were never touched: the kernel reports a first touch of a hole only where it was asked to.
    ///
    /// # Errors
    /// The kernel's error: no memory.
    pub fn populate(&self, first: Gfn, count: u64) -> io::Result<()> {
        for (first, count) in self.shares().unborrowed(first, count) {
            for (gfn, run) in self.map.runs_of(first, count) {
                let offset = self.address(gfn)? - self.base;
                rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), offset, run * PAGE)?;
            }
        }
        Ok(())
    }

    /// Gives the memory at a frame's own place back to the host.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn punch(&self, gfn: Gfn) -> io::Result<()> {
        let offset = self.address(gfn)? - self.base;
        use rustix::fs::FallocateFlags;
        rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, PAGE)?;
        Ok(())
    }

    /// Maps a frame that the file holds, writable or not, and lets the threads go that stopped on it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn restore(&self, gfn: Gfn, writable: bool) -> io::Result<()> {
        let address = self.address(gfn)?;
        let Some(userfault) = self.userfault.get() else { return Ok(()) };
        if !writable {
            // What the kernel zeroes it maps to be written to.
            return self.map_made(gfn, || userfault.map(address, false));
        }
        // One without memory that is not counted as a hole: an ordinary first touch.
        if userfault.map(address, true)? { Ok(()) } else { userfault.zero(address) }
    }

    /// Maps a frame so, which gets memory where the file holds none.
    fn map_made(&self, gfn: Gfn, map: impl Fn() -> io::Result<bool>) -> io::Result<()> {
        if !map()? {
            self.populate(gfn, 1)?;
            map()?;
        }
        Ok(())
    }

    /// Makes a frame's page with this content, maps it, writable or not, and lets the threads go that stopped on it. `false`, and nothing is done,
    /// where that is not to be had at once: there is a page already, first touches are not reported, or the host has no memory.
    pub fn fill(&self, gfn: Gfn, content: &[u8; PAGE_SIZE], writable: bool) -> bool {
        let is_own = || {
            let shares = self.shares();
            !shares.borrows(gfn) && !shares.keeps(gfn)
        };
        let userfault = self.userfault.get().filter(|_| writable || can_map_protected());
        let Some((userfault, address)) = userfault.zip(self.host_address(gfn)).filter(|_| is_own()) else {
            return false;
        };
        userfault.copy(address, content, writable).is_ok()
    }

    /// Maps a frame, to be written to, and lets nobody go that stopped on it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open(&self, gfn: Gfn) -> io::Result<()> {
        let address = self.address(gfn)?;
        let Some(userfault) = self.userfault.get() else { return Ok(()) };
        self.map_made(gfn, || userfault.map_quietly(address))
    }

    /// Lets the threads go that stopped on a frame that is mapped.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn wake(&self, gfn: Gfn) -> io::Result<()> {
        let address = self.address(gfn)?;
        self.userfault.get().map_or(Ok(()), |userfault| userfault.wake(address))
    }

    /// Copies bytes of a frame, whose end the caller checked. Memory that was never touched reads as zero and stays untouched.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> io::Result<()> {
        let shares = self.shares();
        let at = self.address(shares.keeper(gfn))? - self.base + u64::from(offset);
        self.file.read_exact_at(bytes, at)
    }

    /// Whether a frame holds memory.
    pub fn is_there(&self, gfn: Gfn) -> bool {
        let shares = self.shares();
        let Ok(address) = self.address(shares.keeper(gfn)) else { return false };
        let at = address - self.base;
        rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)).is_ok_and(|data| data == at)
    }

    /// Overwrites bytes of a frame, through the file: QEMU's mapping need not be there.
    ///
    /// # Errors
    /// The kernel's error, or a frame that shares its page.
    pub fn write(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> io::Result<()> {
        let shares = self.shares();
        if shares.borrows(gfn) || shares.keeps(gfn) {
            return Err(io::Error::other(format!("frame {gfn} shares its page")));
        }
        drop(shares);
        self.write_own(gfn, offset, bytes)
    }

    /// The same for a frame's own place in the file, whatever it shows.
    pub(crate) fn write_own(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> io::Result<()> {
        let at = self.address(gfn)? - self.base + u64::from(offset);
        self.file.write_all_at(bytes, at)
    }

    /// The frames that have no memory yet, as runs of (first, count). One that shows another's page has that.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn holes(&self) -> io::Result<Vec<(Gfn, u64)>> {
        let mut holes = Vec::new();
        let mut at = 0;
        while at < self.size {
            let data = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
                Ok(data) => data.min(self.size),
                Err(rustix::io::Errno::NXIO) => self.size,
                Err(error) => return Err(error.into()),
            };
            self.map.runs(at / PAGE * PAGE, data, &mut holes);
            if data == self.size {
                break;
            }
            at = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(data))?;
        }
        let shares = self.shares();
        Ok(holes.into_iter().flat_map(|(first, count)| shares.unborrowed(first, count)).collect())
    }
}

/// The walk reads through QEMU's own mapping, with no lock held: a table page that is paged out stops this vCPU like any
/// other touch, and is populated for it.
impl Tables for Memory {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let offset = self.offset(address.gfn())? + u64::from(address.offset());
        let host = self.base + offset;
        // SAFETY: the offset lies in QEMU's mapping, which stays for the process's life, and page table entries are aligned to
        // their size; the guest may write them at any time, so they are read as atomics.
        unsafe {
            if size == 8 {
                Some((*(host as *const AtomicU64)).load(Ordering::Relaxed))
            } else {
                Some(u64::from((*(host as *const AtomicU32)).load(Ordering::Relaxed)))
            }
        }
    }
}
