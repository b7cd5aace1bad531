//! Pages put where the tool reserved them. One of the files with unsafe code: mappings replace mappings.

#![allow(unsafe_code, reason = "a mapping replaces one that was reserved for it; argued below")]

use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::BorrowedFd;
use xen::errno::Errno;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// Puts a page of a file at an address that the tool has reserved.
///
/// # Errors
/// What the kernel refuses.
pub fn replace(address: u64, file: BorrowedFd<'_>, offset: u64, protection: ProtFlags) -> Result<(), Errno> {
    let place = std::ptr::with_exposed_provenance_mut(usize::try_from(address).map_err(|_| Errno::EINVAL)?);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // SAFETY: the caller found the page within a region that the tool reserved on `/dev/xen/privcmd` and has not unmapped, so
    // nothing but this mapping is to be there: Linux's own driver does the same.
    unsafe { rustix::mm::mmap(place, 4096, protection, flags, file, offset) }?;
    // SAFETY: the page is the one that was mapped just now; what is advised is that a child does not get it, as of Linux's driver.
    unsafe { rustix::mm::madvise(place, 4096, Advice::LinuxDontFork) }?;
    Ok(())
}
