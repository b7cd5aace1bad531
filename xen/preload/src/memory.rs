//! The tool's memory by the tool's addresses, of which any may be wrong. The kernel copies, and says EFAULT where a plain access would
//! end the tool. One of the files with unsafe code: two system calls.

#![allow(unsafe_code, reason = "two system calls that take addresses; argued below")]

use libc::{c_void, iovec};
use xen::errno::Errno;

/// The least page.
const PAGE: u64 = 4096;

/// Copies bytes out.
///
/// # Errors
/// EFAULT: not all of them can be read.
pub fn read(address: u64, into: &mut [u8]) -> Result<(), Errno> {
    if into.is_empty() {
        return Ok(());
    }
    let local = iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = iovec { iov_base: pointer(address), iov_len: into.len() };
    // SAFETY: the one side is a slice that may be written; the other is an address that the kernel itself checks.
    let copied = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    if usize::try_from(copied) == Ok(into.len()) { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Copies bytes in.
///
/// # Errors
/// EFAULT: not all of them can be written.
pub fn write(address: u64, bytes: &[u8]) -> Result<(), Errno> {
    if bytes.is_empty() {
        return Ok(());
    }
    let local = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = iovec { iov_base: pointer(address), iov_len: bytes.len() };
    // SAFETY: the kernel only reads the one side, which is a slice. The other is memory that the tool handed over to be written: what
    // Xen's or Linux's own call would write there.
    let copied = unsafe { libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    if usize::try_from(copied) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::EFAULT) }
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap_or_default())
}

/// A text of less than so many bytes that ends with a zero; `None` where there is none.
pub fn text(address: u64, most: u64) -> Option<String> {
    let mut text = Vec::new();
    while (text.len() as u64) < most {
        let from = address.checked_add(text.len() as u64)?;
        // What comes after the zero may lie on a page that is not there.
        let length = (PAGE - from % PAGE).min(most - text.len() as u64);
        let mut piece = vec![0; usize::try_from(length).ok()?];
        read(from, &mut piece).ok()?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&piece[..end]);
            return String::from_utf8(text).ok();
        }
        text.append(&mut piece);
    }
    None
}
