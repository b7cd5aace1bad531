//! Reads any step of a trace in a file, near the time that one block takes.

use super::codec::{self, StepsHead};
use super::find;
use super::index::{Index, StateAt};
use super::reader::{self, Blocks, unreadable};
use super::steps::{self, Past};
use super::{End, HEAD, Header, KIND_STATE, KIND_STEPS, Record, Remarked, Step, TAIL, Why};
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
    /// Its remarks, each with how many steps come before it.
    remarks: Vec<(u64, Remarked)>,
    /// Where the block after it begins.
    next: u64,
    /// Where the first block begins.
    first: u64,
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
        Ok(Tape { file, header, index, end, before: 0, steps: Vec::new(), remarks: Vec::new(), next: first, first })
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
        (self.steps, self.remarks) = (Vec::new(), Vec::new());
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
                    let decoded = records(&payload, head).map_err(|why| end(Why::Content(why)))?;
                    (self.steps, self.remarks) = apart(decoded, head.before);
                    (self.before, self.next) = (head.before, next);
                    return Ok(());
                }
            }
            offset = next;
        }
    }

    /// The remarks that stand right after a step, and before the next one; of 0 those before the first step.
    ///
    /// # Errors
    /// As [`Tape::step`].
    pub fn remarks(&mut self, after: u64) -> Result<Vec<Remarked>, End> {
        let mut remarks = Vec::new();
        if after > 0 {
            self.step(after)?;
            remarks.extend(self.remarks.iter().filter(|(before, _)| *before == after).map(|(_, it)| it.clone()));
            if after < self.before + self.steps.len() as u64 {
                return Ok(remarks);
            }
        }
        let mut offset = if after > 0 { self.next } else { self.first };
        let end = |offset, why| End { offset, steps: after, why };
        let mut payload = Vec::new();
        loop {
            self.file.seek(SeekFrom::Start(offset)).map_err(|error| end(offset, unreadable(&error)))?;
            match Blocks::new(&mut self.file, offset).next(&mut payload) {
                Ok(block) if payload.first() == Some(&KIND_STATE) => offset = block.end(),
                Err(Why::Checksum) if payload.first() == Some(&KIND_STATE) => offset += (HEAD + payload.len()) as u64,
                Ok(block) if payload.first() == Some(&KIND_STEPS) => {
                    let decoded = codec::steps_head(&payload).and_then(|head| Ok((head, records(&payload, head)?)));
                    let (head, decoded) = decoded.map_err(|why| end(offset, Why::Content(why)))?;
                    let leading = decoded.into_iter().map_while(|record| match record {
                        Record::Remark(remark) => Some(remark),
                        Record::Step(_) => None,
                    });
                    remarks.extend(leading);
                    if head.count > 0 {
                        return Ok(remarks);
                    }
                    offset = block.end();
                }
                // The index, or the end of what is there.
                Ok(_) | Err(Why::Stopped | Why::Cut(_)) => return Ok(remarks),
                Err(why) => return Err(end(offset, why)),
            }
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

/// What a payload that is a block of steps holds.
pub(super) fn records(payload: &[u8], head: StepsHead) -> Result<Vec<Record>, String> {
    let (mut at, mut time) = (codec::STEPS_HEAD, head.time);
    let (mut left, mut remarks, mut records) = (head.count, head.remarks, Vec::new());
    let mut past = Past::default();
    while left > 0 || remarks > 0 {
        let bytes = &payload[at..];
        let (record, later, used) = if remarks > 0 && steps::is_remark(bytes) {
            remarks -= 1;
            let (later, remark, used) = steps::read_remark(bytes, &mut past)?;
            (Record::Remark(Remarked { time: time.saturating_add(later), remark }), later, used)
        } else if left == 0 {
            return Err("too few remarks in a block".to_owned());
        } else {
            left -= 1;
            let (mut step, used) = steps::read(bytes, &mut past)?;
            let later = step.time;
            step.time = time.saturating_add(later);
            (Record::Step(step), later, used)
        };
        time = time.saturating_add(later);
        records.push(record);
        at += used;
    }
    if at == payload.len() { Ok(records) } else { Err(format!("{} bytes after the last step", payload.len() - at)) }
}

/// The steps, and the remarks with how many steps of the trace come before each.
fn apart(records: Vec<Record>, before: u64) -> (Vec<Step>, Vec<(u64, Remarked)>) {
    let (mut steps, mut remarks) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Step(step) => steps.push(step),
            Record::Remark(remark) => remarks.push((before + steps.len() as u64, remark)),
        }
    }
    (steps, remarks)
}

impl<R: Read + Seek> fmt::Debug for Tape<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape").field("header", &self.header).field("end", &self.end).finish_non_exhaustive()
    }
}
