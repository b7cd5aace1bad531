//! Traces: every input of a run with everything that the engine answered, so that the run replays without a guest.
//!
//! | file | what lives there |
//! |---|---|
//! | `mod` | the format, and what a trace holds |
//! | `codec` | values to bytes and back; the only file that knows the encoding |
//! | [`writer`] | records, and never disturbs the run |
//! | [`reader`] | reads up to the end or to the first damage, and says which |
//! | [`replay`](mod@replay) | applies the inputs to a fresh engine and compares |
//!
//! # The file
//!
//! ```text
//!   0  8 bytes "MEMEVENT"
//!   8  u32 format version = 1
//!  12  frames, one after the other, up to the end of the file:
//!
//!      0  u32 CRC-32 (IEEE) of everything that follows in the frame
//!      4  u32 length of the payload, 1 to 1 MiB
//!      8  payload: u8 kind, then values in bincode 2's standard configuration
//!           kind 0  Header; the first frame and only there
//!           kind 1  Input, bytes taken, Outcome, list of Effect: one step
//!           kind 2  u64 number of steps: the recording was ended in order; the last frame
//! ```
//! Fixed numbers are little endian. A frame is written after the ones before it and never changed, so whatever a killed
//! recorder left can be read up to its last whole frame.

pub(crate) mod codec;
pub mod reader;
pub mod replay;
pub mod writer;

pub use reader::Reader;
pub use replay::{Difference, Engine, Failure, Summary, replay};
pub use writer::Writer;

use crate::effect::{Effects, Outcome};
use crate::input::{DomainConfig, Input};
use bincode::{Decode, Encode};
use std::fmt;

/// The format's version; a change of [`Header`], [`Step`] or anything inside them needs the next number.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"MEMEVENT";
const PREAMBLE: usize = 12;
const FRAME: usize = 8;
/// No payload is longer; a length above it is damage, so no reader allocates more than this for it.
const LONGEST: usize = 1 << 20;

const KIND_HEADER: u8 = 0;
const KIND_STEP: u8 = 1;
const KIND_END: u8 = 2;

/// What a trace says about its run before the first step.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// The guest's name.
    pub guest: String,
    /// A hash of the guest's image, as its writer spells it; empty where there is none.
    pub guest_hash: String,
    /// QEMU's version.
    pub qemu: String,
    /// The recorder's version.
    pub plugin: String,
    /// The scenario's text; empty where there is none.
    pub scenario: String,
    /// The domain that the steps belong to.
    pub config: DomainConfig,
    /// Anything else worth knowing, as names and values.
    pub facts: Vec<(String, String)>,
}

/// One step of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the engine was told.
    pub input: Input,
    /// What it answered.
    pub outcome: Outcome,
    /// What had to happen, and what was taken from ring pages.
    pub effects: Effects,
}

/// Where reading stopped, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The byte after the last one that was understood: what comes from here on was not read.
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
    /// The file ends after a whole frame, without the mark of an ordered end: the recorder was stopped.
    Stopped,
    /// The file ends inside a frame, so many bytes after its beginning.
    Cut(u64),
    /// The file does not begin as a trace does.
    NoTrace,
    /// A trace of another format version.
    Version(u32),
    /// A frame's length that cannot be.
    Length(u32),
    /// A frame's checksum is wrong.
    Checksum,
    /// A frame is whole but holds something else than it should.
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
        match why {
            Why::Finished => write!(f, "{steps} steps, ended in order at byte {offset}"),
            Why::Stopped => write!(f, "{steps} steps, then the recording stops at byte {offset} without its end mark"),
            Why::Cut(more) => write!(f, "{steps} steps up to byte {offset}, then a frame cut after {more} bytes"),
            Why::NoTrace => f.write_str("not a trace: it does not begin with MEMEVENT"),
            Why::Version(version) => write!(f, "a trace of format version {version}; this program reads {VERSION}"),
            Why::Length(length) => {
                write!(f, "damaged at byte {offset}, after {steps} steps: a frame of {length} bytes")
            }
            Why::Checksum => write!(f, "damaged at byte {offset}, after {steps} steps: the frame's checksum is wrong"),
            Why::Content(what) => write!(f, "damaged at byte {offset}, after {steps} steps: {what}"),
            Why::Unreadable(what) => write!(f, "unreadable at byte {offset}, after {steps} steps: {what}"),
        }
    }
}

impl std::error::Error for End {}
