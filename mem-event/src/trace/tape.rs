//! Reads any step of a trace in a file, near the time that one block takes.

use super::codec::{self, StepsHead};
use super::find;
use super::index::{Index, StateAt};
use super::reader::{self, Blocks, unreadable};
use super::{End, HEAD, Header, KIND_STATE, Step, TAIL, Why};
use crate::state::Checkpoint;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A trace in a file, at hand from its first step to its last. Steps count from 1.
pub struct Tape<R: Read + Seek = BufReader<File>> {
    file: R,
    header: Header,
    index: Index,
    end: End,
    /// The steps of the block that was read last, and how many come before them.
    before: u64,
    steps: Vec<Step>,
    /// Where the block after it begins.
    next: u64,
}

impl Tape {
    /// Opens a file. One that was ended in order opens at once; of any other all blocks are read and their checksums compared.
    ///
    /// # Errors
    /// [`End`]: no file, no trace, another version, a damaged or missing header.
    pub fn open(path: impl AsRef<Path>) -> Result<Tape, End> {
        let file = File::open(path).map_err(|error| End { offset: 0, steps: 0, why: unreadable(&error) })?;
        Tape::new(BufReader::with_capacity(1 << 16, file))
    }
}

impl<R: Read + Seek> Tape<R> {
    /// The same of anything that can be sought in.
    ///
    /// # Errors
    /// As [`Tape::open`].
    pub fn new(mut file: R) -> Result<Tape<R>, End> {
        let (header, first) = reader::begin(&mut file)?;
        let (index, end) = match find::at_the_end(&mut file) {
            Some((index, at)) => {
                let size = file.seek(SeekFrom::End(0)).unwrap_or(at + TAIL as u64);
                let end = End { offset: size, steps: index.steps, why: Why::Finished };
                (index, end)
            }
            None => find::by_reading(&mut file, first)?,
        };
        Ok(Tape { file, header, index, end, before: 0, steps: Vec::new(), next: first })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many steps there are.
    pub fn len(&self) -> u64 {
        self.index.steps
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.index.steps == 0
    }

    /// How the trace ends. Damage inside of a trace that was ended in order shows when it is read.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Where its blocks are.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// A step, from 1.
    ///
    /// # Errors
    /// [`End`], where the step's block is damaged, and for numbers that are no step's.
    pub fn step(&mut self, number: u64) -> Result<&Step, End> {
        if number == 0 || number > self.index.steps {
            return Err(self.end.clone());
        }
        if !self.has(number) {
            self.load(number)?;
        }
        let at = usize::try_from(number - self.before - 1).unwrap_or(usize::MAX);
        self.steps.get(at).ok_or_else(|| End {
            offset: self.next,
            steps: self.before,
            why: Why::Content(format!("step {number} is not where it should be")),
        })
    }

    fn has(&self, number: u64) -> bool {
        number > self.before && number - self.before <= self.steps.len() as u64
    }

    fn load(&mut self, number: u64) -> Result<(), End> {
        let follows = !self.steps.is_empty() && self.before + self.steps.len() as u64 + 1 == number;
        let listed = self.index.block_of(number).map(|block| block.offset);
        let mut offset = match (follows, listed) {
            (true, _) => self.next,
            (false, Some(offset)) => offset,
            (false, None) => return Err(self.end.clone()),
        };
        self.steps.clear();
        let fail = |offset, steps, why| End { offset, steps, why };
        self.file.seek(SeekFrom::Start(offset)).map_err(|error| fail(offset, number - 1, unreadable(&error)))?;
        let mut payload = Vec::new();
        loop {
            let mut blocks = Blocks::new(&mut self.file, offset);
            let end = |why| fail(offset, number - 1, why);
            let read = blocks.next(&mut payload);
            let next = offset + (HEAD + payload.len()) as u64;
            if let Err(why) = read
                && !(why == Why::Checksum && payload.first() == Some(&KIND_STATE))
            {
                // A damaged state is no step's matter: what follows it has its own checksum and number.
                return Err(end(why));
            }
            if payload.first() != Some(&KIND_STATE) {
                let head = codec::steps_head(&payload).map_err(|why| end(Why::Content(why)))?;
                if head.before >= number {
                    return Err(end(Why::Content(format!("steps from {} on", head.before.saturating_add(1)))));
                }
                if number - head.before <= u64::from(head.count) {
                    self.steps = decode(&payload, head).map_err(|why| end(Why::Content(why)))?;
                    (self.before, self.next) = (head.before, next);
                    return Ok(());
                }
            }
            offset = next;
        }
    }

    /// The state after some number of steps, for [`crate::Domain::restore`].
    ///
    /// # Errors
    /// A sentence, where its block is damaged.
    pub fn state(&mut self, at: StateAt) -> Result<Checkpoint, String> {
        self.file.seek(SeekFrom::Start(at.offset)).map_err(|error| error.to_string())?;
        let mut payload = Vec::new();
        let block = Blocks::new(&mut self.file, at.offset).next(&mut payload);
        block.map_err(|why| End { offset: at.offset, steps: at.steps, why }.to_string())?;
        match codec::state(&payload)? {
            (steps, state) if steps == at.steps => Ok(state),
            (steps, _) => Err(format!("a state after {steps} steps, where {} are due", at.steps)),
        }
    }

    /// The first step that is not before a time in nanoseconds; one more than there are, where all are.
    ///
    /// # Errors
    /// As [`Tape::step`].
    pub fn step_at(&mut self, time: u64) -> Result<u64, End> {
        let after = self.index.blocks.partition_point(|block| block.time < time);
        let mut number = after.checked_sub(1).map_or(1, |at| self.index.blocks[at].before + 1);
        while number <= self.len() && self.step(number)?.time < time {
            number += 1;
        }
        Ok(number)
    }
}

fn decode(payload: &[u8], head: StepsHead) -> Result<Vec<Step>, String> {
    let (mut at, mut time, mut steps) = (codec::STEPS_HEAD, head.time, Vec::new());
    for _ in 0..head.count {
        let (mut step, used) = codec::read_step(&payload[at..])?;
        time = step.time.saturating_add(time);
        step.time = time;
        steps.push(step);
        at += used;
    }
    if at == payload.len() { Ok(steps) } else { Err(format!("{} bytes after the last step", payload.len() - at)) }
}

impl<R: Read + Seek> fmt::Debug for Tape<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("header", &self.header).field("end", &self.end).finish_non_exhaustive()
    }
}
