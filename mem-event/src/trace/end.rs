//! Where reading a trace stopped, and why.

use super::{PREAMBLE, VERSION};
use std::fmt;

/// Where reading stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The byte after the last block that was understood: what comes from here on was not read.
    pub offset: u64,
    /// Steps before it.
    pub steps: u64,
    /// Why no more.
    pub why: Why,
}

/// Why reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The recording was ended in order.
    Finished,
    /// The file ends after a whole block, without the mark of an ordered end: the recorder was stopped.
    Stopped,
    /// The file ends inside a block, so many bytes after its beginning.
    Cut(u64),
    /// The file does not begin as a trace does.
    NoTrace,
    /// A trace of another format version.
    Version(u32),
    /// A block's length that cannot be.
    Length(u32),
    /// A block's checksum is wrong.
    Checksum,
    /// A block is whole but holds something else than it should.
    Content(String),
    /// The file could not be read.
    Unreadable(String),
}

impl End {
    /// Whether everything that the recorder wrote was read: an ordered end, or one that its being stopped explains.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.why, Why::Finished | Why::Stopped | Why::Cut(_)) && self.offset >= PREAMBLE as u64
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let End { offset, steps, why } = self;
        let damaged = |f: &mut fmt::Formatter<'_>| write!(f, "damaged at byte {offset}, after {steps} steps: ");
        match why {
            Why::Finished => write!(f, "{steps} steps, ended in order at byte {offset}"),
            Why::Stopped => write!(f, "{steps} steps, then the recording stops at byte {offset} without its end mark"),
            Why::Cut(more) => write!(f, "{steps} steps up to byte {offset}, then a block cut after {more} bytes"),
            Why::NoTrace => f.write_str("not a trace: it does not begin with MEMEVENT"),
            Why::Version(version) => write!(
                f,
                "a trace of format version {version}; this program reads {VERSION}: record it again, or replay it with the \
                 release that wrote it"
            ),
            Why::Length(length) => damaged(f).and_then(|()| write!(f, "a block of {length} bytes")),
            Why::Checksum => damaged(f).and_then(|()| f.write_str("the block's checksum is wrong")),
            Why::Content(what) => damaged(f).and_then(|()| f.write_str(what)),
            Why::Unreadable(what) => write!(f, "unreadable at byte {offset}, after {steps} steps: {what}"),
        }
    }
}

impl std::error::Error for End {}
