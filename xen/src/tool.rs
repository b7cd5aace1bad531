//! The process whose calls these are, as far as the calls touch it: its memory, and the pages that it reserved for mappings.

use crate::errno::Errno;
use mem_event::Gfn;
use std::os::fd::BorrowedFd;

/// A tool's process. Every address is the tool's claim, and a wrong one is refused with EFAULT.
pub trait Tool {
    /// Copies bytes of its memory out.
    ///
    /// # Errors
    /// EFAULT: not all of them are there to be read.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies bytes into its memory.
    ///
    /// # Errors
    /// EFAULT: not all of them are there to be written.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// Whether the page that it has reserved here is to be written.
    ///
    /// # Errors
    /// EINVAL: it has reserved none.
    fn writes(&self, address: u64) -> Result<bool, Errno>;

    /// Puts a page of a file where the tool has reserved one. A frame of a domain is noted with it, until the tool unmaps the page; the
    /// frame that was there before is given back.
    ///
    /// # Errors
    /// EINVAL: it has reserved none there; else what the kernel refuses.
    fn map(
        &mut self,
        address: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        frame: Option<Frame>,
    ) -> Result<Option<Frame>, Errno>;
}

/// A frame of a domain that the tool has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The domain's number.
    pub domain: u16,
    /// The frame.
    pub gfn: Gfn,
}

/// A number of the tool's memory.
///
/// # Errors
/// EFAULT.
pub fn read_u64(tool: &dyn Tool, address: u64) -> Result<u64, Errno> {
    let mut bytes = [0; 8];
    tool.read(address, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
