//! Memory beyond the guest's RAM: a file of its own, of which QEMU knows nothing. A frame lies there at its number, and what was never written
//! is a hole.

use mem_event::{Gfn, PAGE_SIZE};
use rustix::fs::{FallocateFlags, MemfdFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

const PAGE: u64 = PAGE_SIZE as u64;

/// The file, made when it is first needed.
#[derive(Debug, Default)]
pub struct BeyondRam(OnceLock<File>);

impl BeyondRam {
    /// Has the file reach behind a frame, so that it can be read and mapped.
    ///
    /// # Errors
    /// The kernel's error: no memory, or a limit of this process.
    pub fn make_room(&self, gfn: Gfn) -> io::Result<()> {
        if self.0.get().is_none() {
            let file = rustix::fs::memfd_create(c"mem-event-beyond-ram", MemfdFlags::CLOEXEC)?;
            let _ = self.0.set(File::from(file));
        }
        let (file, end) = (self.file()?, (gfn.0 + 1) * PAGE);
        if file.metadata()?.len() < end { file.set_len(end) } else { Ok(()) }
    }

    fn file(&self) -> io::Result<&File> {
        self.0.get().ok_or_else(|| io::Error::other("there are no frames beyond RAM"))
    }

    /// The file, for a process that maps frames of it.
    ///
    /// # Errors
    /// The kernel's error, or there are no such frames.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file()?.try_clone().map(OwnedFd::from)
    }

    /// Where a frame lies in the file.
    pub fn offset(gfn: Gfn) -> u64 {
        gfn.0 * PAGE
    }

    /// Copies bytes of a frame, whose end the caller checked.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> io::Result<()> {
        self.file()?.read_exact_at(bytes, BeyondRam::offset(gfn) + u64::from(offset))
    }

    /// Overwrites bytes of a frame.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn write(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> io::Result<()> {
        self.file()?.write_all_at(bytes, BeyondRam::offset(gfn) + u64::from(offset))
    }

    /// Gives a frame's memory back to the host: it reads as zeros from now on.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn punch(&self, gfn: Gfn) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(self.file()?, flags, BeyondRam::offset(gfn), PAGE)?)
    }
}
