//! A trace that is still written, into a file or a pipe: what is there by now, and later the rest.

use super::codec::{self, StepsHead};
use super::reader::{self, Blocks, unreadable};
use super::tape::records;
use super::{End, HEAD, Header, KIND_INDEX, KIND_STATE, KIND_STEPS, LONGEST, Record, Why};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Bytes that are read at a time.
const CHUNK: usize = 1 << 18;

/// Reads a trace while it grows. States are passed over.
pub struct Follower<R: Read = File> {
    source: R,
    /// What was read and not understood yet, from `at` on.
    bytes: Vec<u8>,
    at: usize,
    /// Where in the trace that is.
    offset: u64,
    header: Option<Header>,
    steps: u64,
    waiting: VecDeque<Record>,
    end: Option<End>,
    /// Whether the last read found the end of the source.
    ran_dry: bool,
}

impl Follower {
    /// Opens a file.
    ///
    /// # Errors
    /// What the file system refuses.
    pub fn open(path: impl AsRef<Path>) -> std::io::Result<Follower> {
        File::open(path).map(Follower::new)
    }
}

impl<R: Read> Follower<R> {
    /// From its beginning. A source that has nothing by now says so by its end, or by `WouldBlock`.
    pub fn new(source: R) -> Follower<R> {
        let (bytes, waiting) = (Vec::new(), VecDeque::new());
        Follower { source, bytes, at: 0, offset: 0, header: None, steps: 0, waiting, end: None, ran_dry: false }
    }

    /// The header, once it is there.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Steps that were read.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Why no more will come: the recording was ended in order, or is damaged here.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Whether the source has ended by now. A file may grow on; the writer of a pipe is gone.
    pub fn ran_dry(&self) -> bool {
        self.ran_dry
    }

    /// The next step or remark; `None` where there are no more by now, or the end was read.
    pub fn record(&mut self) -> Option<Record> {
        while self.waiting.is_empty() && self.end.is_none() {
            match self.block() {
                Ok(true) => {}
                Ok(false) => match self.fill() {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(why) => self.ends(why),
                },
                Err(why) => self.ends(why),
            }
        }
        let record = self.waiting.pop_front();
        self.steps += u64::from(matches!(record, Some(Record::Step(_))));
        record
    }

    fn ends(&mut self, why: Why) {
        self.end = Some(End { offset: self.offset, steps: self.steps, why });
    }

    /// Reads some bytes more; how many.
    fn fill(&mut self) -> Result<usize, Why> {
        self.bytes.drain(..self.at);
        self.at = 0;
        let begin = self.bytes.len();
        self.bytes.resize(begin + CHUNK, 0);
        let got = loop {
            match self.source.read(&mut self.bytes[begin..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.ran_dry = matches!(got, Ok(0));
        let got = match got {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            other => other,
        };
        self.bytes.truncate(begin + *got.as_ref().unwrap_or(&0));
        got.map_err(|error| unreadable(&error))
    }

    fn understood(&mut self, bytes: u64) {
        self.offset += bytes;
        self.at += usize::try_from(bytes).unwrap_or(usize::MAX);
    }

    /// Understands the next block, if all of it is there.
    fn block(&mut self) -> Result<bool, Why> {
        let mut bytes = &self.bytes[self.at..];
        if self.header.is_none() {
            return match reader::begin(&mut bytes) {
                Ok((header, length)) => {
                    self.header = Some(header);
                    self.understood(length);
                    Ok(true)
                }
                Err(End { why: Why::Stopped | Why::Cut(_), .. }) => Ok(false),
                Err(_) if bytes.is_empty() => Ok(false),
                Err(end) => Err(end.why),
            };
        }
        let Some([_, _, _, _, length @ ..]) = bytes.first_chunk::<HEAD>() else { return Ok(false) };
        let length = u32::from_le_bytes(*length) as usize;
        if length <= LONGEST && bytes.len() < HEAD + length {
            return Ok(false);
        }
        let (mut payload, begin) = (Vec::new(), self.offset);
        let mut blocks = Blocks::new(&mut bytes, begin);
        let block = blocks.next(&mut payload)?;
        match payload.first() {
            Some(&KIND_STEPS) => {
                let head = codec::steps_head(&payload).map_err(Why::Content)?;
                let StepsHead { before, count, .. } = head;
                if before != self.steps {
                    return Err(Why::Content(format!("{count} steps after {before}, where {} were read", self.steps)));
                }
                self.waiting.extend(records(&payload, head).map_err(Why::Content)?);
            }
            Some(&KIND_STATE) => {}
            Some(&KIND_INDEX) => {
                return match blocks.after_the_index(begin) {
                    // Its last bytes are on their way.
                    Why::Cut(_) => Ok(false),
                    why => Err(why),
                };
            }
            _ => return Err(Why::Content("a block of unknown kind".into())),
        }
        self.understood(block.end() - begin);
        Ok(true)
    }
}

impl<R: Read> fmt::Debug for Follower<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("offset", &self.offset).field("steps", &self.steps).finish_non_exhaustive()
    }
}
