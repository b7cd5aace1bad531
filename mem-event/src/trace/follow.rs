//! A trace in a file that is still written: what is there by now, and later the rest.

use super::codec::{self, StepsHead};
use super::reader::{self, Blocks, unreadable};
use super::tape::records;
use super::{End, Header, KIND_INDEX, KIND_STATE, KIND_STEPS, Record, Why};
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::Path;

/// Reads a file while it grows. States are passed over.
pub struct Follower {
    file: BufReader<File>,
    header: Header,
    /// Where the next block begins.
    offset: u64,
    steps: u64,
    waiting: VecDeque<Record>,
    end: Option<End>,
}

impl Follower {
    /// Opens a file whose header is written.
    ///
    /// # Errors
    /// [`End`], as of [`super::Reader::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Follower, End> {
        let file = File::open(path).map_err(|error| End { offset: 0, steps: 0, why: unreadable(&error) })?;
        let mut file = BufReader::with_capacity(1 << 16, file);
        let (header, offset) = reader::begin(&mut file)?;
        Ok(Follower { file, header, offset, steps: 0, waiting: VecDeque::new(), end: None })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Steps that were read.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Why no more will come: the recording was ended in order, or the file is damaged here.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next step or remark; `None` where the file has no more by now, or its end was read.
    pub fn record(&mut self) -> Option<Record> {
        while self.waiting.is_empty() && self.end.is_none() {
            match self.block() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(why) => self.end = Some(End { offset: self.offset, steps: self.steps, why }),
            }
        }
        let record = self.waiting.pop_front();
        self.steps += u64::from(matches!(record, Some(Record::Step(_))));
        record
    }

    /// Reads the next block, if all of it is there.
    fn block(&mut self) -> Result<bool, Why> {
        self.file.seek(SeekFrom::Start(self.offset)).map_err(|error| unreadable(&error))?;
        let mut payload = Vec::new();
        let mut blocks = Blocks::new(&mut self.file, self.offset);
        let block = match blocks.next(&mut payload) {
            Ok(block) => block,
            Err(Why::Stopped | Why::Cut(_)) => return Ok(false),
            Err(why) => return Err(why),
        };
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
                return match blocks.after_the_index(block.offset) {
                    // Its last bytes are on their way.
                    Why::Cut(_) => Ok(false),
                    why => Err(why),
                };
            }
            _ => return Err(Why::Content("a block of unknown kind".into())),
        }
        self.offset = block.end();
        Ok(true)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("offset", &self.offset).field("steps", &self.steps).finish_non_exhaustive()
    }
}
