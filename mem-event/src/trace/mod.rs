//! Traces: every input of a run with everything that the engine answered, so that the run replays without a guest.
//!
//! | file | what lives there |
//! |---|---|
//! | `mod` | the format, and what a trace holds |
//! | `codec` | blocks to bytes and back |
//! | `values` | whole values to bytes and back |
//! | `steps` | steps and remarks to bytes and back, each by what is new in it |
//! | `bytes` | numbers in as few bytes as they need |
//! | [`writer`] | records, and never disturbs the run |
//! | [`reader`] | reads from front to back, up to the end or to the first damage, and says which |
//! | [`index`], `find` | where the blocks of a file are, and how they are found |
//! | [`tape`] | reads any step of a file |
//! | [`replay`](mod@replay) | applies the inputs to a fresh engine and compares |
//! | `engine` | what a replay drives |
//! | [`player`] | an engine at any step of a file |
//! | [`remark`] | what stands between the steps
//! | [`follow`] | a file that still grows
//! | [`consumers`] | what the world outside did to ring pages before a step |
//! | [`end`] | where reading stopped, and why |
//!
//! `docs/trace.md` describes the bytes. In short: a magic, a version, then blocks, each with its length and checksum: the header,
//! steps and remarks by some hundreds, now and then the engine's whole state, at last an index. A block is written after the ones before
//! it and never changed, so whatever a killed recorder left can be read up to its last whole block, and a pipe will do.

mod bytes;
pub(crate) mod codec;
pub mod consumers;
pub mod end;
mod engine;
mod find;
pub mod follow;
pub mod index;
pub mod player;
pub mod reader;
pub mod remark;
pub mod replay;
mod steps;
pub mod tape;
mod values;
pub mod writer;

pub use consumers::RecordedConsumers;
pub use end::{End, Why};
pub use engine::Engine;
pub use follow::Follower;
pub use index::Index;
pub use player::{Player, PlayerError};
pub use reader::Reader;
pub use remark::Remark;
pub use replay::{Difference, Failure, Summary, replay};
pub use tape::Tape;
pub use writer::Writer;

use crate::effect::{Effects, Outcome};
use crate::input::{DomainConfig, Input};
use bincode::{Decode, Encode};

/// The format's version; a change of [`Header`], [`Step`], [`Remark`], [`crate::Checkpoint`] or anything inside them needs the next number.
pub const VERSION: u32 = 9;

/// The first eight bytes of a trace, of any version.
pub const MAGIC: &[u8; 8] = b"MEMEVENT";
/// The last eight bytes of a trace that was ended in order; before them stands the offset of the index.
const TAIL_MAGIC: &[u8; 8] = b"MEMINDEX";
const PREAMBLE: usize = 12;
/// Bytes of a block before its payload: checksum and length.
const HEAD: usize = 8;
/// Bytes after the index.
const TAIL: usize = 16;
/// No payload is longer; a length above it is damage. Readers take room as bytes come, not as a length says.
const LONGEST: usize = 1 << 26;
/// No step is longer.
const LONGEST_STEP: usize = 1 << 20;

const KIND_HEADER: u8 = 0;
const KIND_STEPS: u8 = 1;
const KIND_STATE: u8 = 2;
const KIND_INDEX: u8 = 3;

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
    /// The guest's symbols, in order of their addresses.
    pub symbols: Vec<Symbol>,
}

impl Header {
    /// Of a domain that runs this guest, with nothing else that is known.
    #[must_use]
    pub fn of(guest: &str, config: DomainConfig) -> Header {
        Header {
            guest: guest.to_owned(),
            guest_hash: String::new(),
            qemu: String::new(),
            plugin: String::new(),
            scenario: String::new(),
            config,
            facts: Vec::new(),
            symbols: Vec::new(),
        }
    }
}

/// A name for guest-physical addresses.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Symbol {
    /// The guest-physical address of its first byte.
    pub gpa: u64,
    /// Bytes; 0 where nobody says.
    pub size: u64,
    /// The name.
    pub name: String,
}

/// What a recorder knows of a step besides the engine's part. A replay passes it on and does not read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// Nanoseconds from the beginning of the recording; never less than in the step before.
    pub time: u64,
    /// The code's size in bits (16, 32 or 64), then the bytes from the instruction pointer on, at most 15; empty where they are not
    /// known.
    pub code: &'a [u8],
    /// The connection whose call caused the step, see [`Remark::Came`]; 0 for none.
    pub connection: u32,
}

/// One step of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// See [`Context::time`].
    pub time: u64,
    /// See [`Context::code`].
    pub code: Vec<u8>,
    /// See [`Context::connection`].
    pub connection: u32,
    /// What the engine was told.
    pub input: Input,
    /// What it answered.
    pub outcome: Outcome,
    /// What had to happen, and what was taken from ring pages.
    pub effects: Effects,
}

/// What a trace holds besides its header and its states, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A step of the engine.
    Step(Step),
    /// Something between two steps.
    Remark(Remarked),
}

/// A remark with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remarked {
    /// See [`Context::time`].
    pub time: u64,
    /// What.
    pub remark: Remark,
}
