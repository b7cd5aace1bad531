//! Reads a trace from front to back, up to its end or to the first damage.

use super::codec::{self, StepsHead};
use super::steps::{self, Past, Told};
use super::{End, HEAD, Header, LONGEST, MAGIC, PREAMBLE, Record, Remarked, Step, TAIL, TAIL_MAGIC, VERSION, Why};
use super::{KIND_INDEX, KIND_STATE, KIND_STEPS};
use crate::effect::Effect;
use crate::state::Checkpoint;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// Bytes that a payload takes room for at a time, so that no length is believed before its bytes are there.
const CHUNK: usize = 1 << 16;

/// A block that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where it begins.
    pub offset: u64,
    /// Bytes of its payload.
    pub length: u32,
}

impl Block {
    /// The byte after it.
    pub fn end(self) -> u64 {
        self.offset + HEAD as u64 + u64::from(self.length)
    }
}

/// Block after block; what is in them is somebody else's matter.
pub(super) struct Blocks<R> {
    file: R,
    offset: u64,
}

impl<R: Read> Blocks<R> {
    /// From a file that stands at `offset`.
    pub fn new(file: R, offset: u64) -> Blocks<R> {
        Blocks { file, offset }
    }

    /// Where the next block begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next block's payload into the buffer.
    pub fn next(&mut self, payload: &mut Vec<u8>) -> Result<Block, Why> {
        payload.clear();
        let mut head = [0; HEAD];
        match fill(&mut self.file, &mut head)? {
            HEAD => {}
            0 => return Err(Why::Stopped),
            got => return Err(Why::Cut(got as u64)),
        }
        let [s0, s1, s2, s3, l0, l1, l2, l3] = head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let size = length as usize;
        if size == 0 || size > LONGEST {
            return Err(Why::Length(length));
        }
        while payload.len() < size {
            let begin = payload.len();
            payload.resize(size.min(begin + CHUNK), 0);
            let got = fill(&mut self.file, &mut payload[begin..])?;
            if begin + got < payload.len() {
                return Err(Why::Cut((HEAD + begin + got) as u64));
            }
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&[l0, l1, l2, l3]);
        sum.update(payload);
        if sum.finalize() != u32::from_le_bytes([s0, s1, s2, s3]) {
            return Err(Why::Checksum);
        }
        let block = Block { offset: self.offset, length };
        self.offset = block.end();
        Ok(block)
    }

    /// What follows the index, which was read last and begins there: the end of a trace, or why it is none.
    pub fn after_the_index(&mut self, begin: u64) -> Why {
        let mut tail = [0; TAIL + 1];
        let got = match fill(&mut self.file, &mut tail) {
            Ok(got) => got,
            Err(why) => return why,
        };
        let expected = [begin.to_le_bytes(), *TAIL_MAGIC].concat();
        if tail[..got.min(TAIL)] != expected[..got.min(TAIL)] {
            return Why::Content("the index is not followed by where it is".into());
        }
        match got {
            TAIL => Why::Finished,
            0..TAIL => Why::Cut(self.offset - begin + got as u64),
            _ => Why::Content("bytes after the end mark".into()),
        }
    }
}

/// Reads what stands before the first step; the header, and where it ends.
pub(super) fn begin(file: &mut impl Read) -> Result<(Header, u64), End> {
    let end = |offset, why| End { offset, steps: 0, why };
    let mut preamble = [0; PREAMBLE];
    let got = fill(file, &mut preamble).map_err(|why| end(0, why))?;
    let begin = &preamble[..got.min(MAGIC.len())];
    if got == 0 || begin != &MAGIC[..begin.len()] {
        return Err(end(0, Why::NoTrace));
    }
    if got < PREAMBLE {
        return Err(end(0, Why::Cut(got as u64)));
    }
    let version = u32::from_le_bytes([preamble[8], preamble[9], preamble[10], preamble[11]]);
    if version != VERSION {
        return Err(end(0, Why::Version(version)));
    }
    let offset = PREAMBLE as u64;
    let mut payload = Vec::new();
    let block = Blocks::new(file, offset).next(&mut payload).map_err(|why| end(offset, why))?;
    let header = codec::header(&payload).map_err(|why| end(offset, Why::Content(why)))?;
    Ok((header, block.end()))
}

/// The steps of a trace, one after the other; after the last one an [`End`], as the iterator's only error.
pub struct Reader<R: Read = BufReader<File>> {
    blocks: Blocks<R>,
    header: Header,
    /// The block of steps that is being read, and what is known of it so far.
    payload: Vec<u8>,
    past: Past,
    /// Where in it the next step or remark begins, how many of each are left, and where the block begins in the file.
    at: usize,
    left: u32,
    remarks: u32,
    begin: u64,
    /// The time of the last step read.
    time: u64,
    steps: u64,
    /// The payload of a state that came after the steps read so far.
    state: Option<Vec<u8>>,
    ended: bool,
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`End`] at offset 0 or later: no file, no trace, another version, a damaged or missing header.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader, End> {
        let file = File::open(path).map_err(|error| End { offset: 0, steps: 0, why: unreadable(&error) })?;
        Reader::new(BufReader::with_capacity(1 << 16, file))
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header of a trace from anything, a pipe too.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(mut file: R) -> Result<Reader<R>, End> {
        let (header, offset) = begin(&mut file)?;
        let blocks = Blocks::new(file, offset);
        Ok(Reader {
            blocks,
            header,
            payload: Vec::new(),
            past: Past::default(),
            at: 0,
            left: 0,
            remarks: 0,
            begin: offset,
            time: 0,
            steps: 0,
            state: None,
            ended: false,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The byte after the last block that is read to its end.
    pub fn offset(&self) -> u64 {
        if self.left > 0 || self.remarks > 0 { self.begin } else { self.blocks.offset() }
    }

    /// Makes sure that there is a next step, of which nothing is decoded. Remarks before it are passed over.
    ///
    /// # Errors
    /// The trace's end, which comes once and is remembered.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), End> {
        while self.remark()?.is_some() {}
        Ok(())
    }

    /// The remark that stands next; none where a step does.
    fn remark(&mut self) -> Result<Option<Remarked>, End> {
        while self.left == 0 && self.remarks == 0 {
            self.next_block()?;
        }
        if self.remarks == 0 {
            return Ok(None);
        }
        let bytes = &self.payload[self.at..];
        if !steps::is_remark(bytes) {
            return if self.left > 0 { Ok(None) } else { Err(self.wrong("too few remarks".to_owned())) };
        }
        let read = steps::read_remark(bytes, &mut self.past);
        let (later, remark, used) = read.map_err(|why| self.wrong(why))?;
        self.remarks -= 1;
        self.passed(used, self.time.saturating_add(later))?;
        Ok(Some(Remarked { time: self.time, remark }))
    }

    fn wrong(&mut self, why: String) -> End {
        self.end(Why::Content(why))
    }

    /// The next step or remark.
    ///
    /// # Errors
    /// The trace's end, which comes once.
    pub fn record(&mut self) -> Result<Record, End> {
        if let Some(remark) = self.remark()? {
            return Ok(Record::Remark(remark));
        }
        let (step, used) = self.step().map_err(|why| self.end(why))?;
        self.accept(used, step.time)?;
        Ok(Record::Step(step))
    }

    fn next_block(&mut self) -> Result<(), End> {
        self.begin = self.blocks.offset();
        let read = match self.blocks.next(&mut self.payload) {
            Ok(_) => self.take_block(),
            Err(why) => Err(why),
        };
        read.map_err(|why| self.end(why))
    }

    fn take_block(&mut self) -> Result<(), Why> {
        match self.payload.first() {
            Some(&KIND_STEPS) => {
                let StepsHead { before, count, remarks, time } =
                    codec::steps_head(&self.payload).map_err(Why::Content)?;
                if before != self.steps || time < self.time {
                    let here = self.steps;
                    let from = before.saturating_add(1);
                    return Err(Why::Content(format!("{count} steps from {from} on, where {here} were read")));
                }
                (self.at, self.left, self.remarks, self.time) = (codec::STEPS_HEAD, count, remarks, time);
                self.past.forget();
                Ok(())
            }
            Some(&KIND_STATE) => {
                self.state = Some(std::mem::take(&mut self.payload));
                Ok(())
            }
            Some(&KIND_INDEX) => self.finish(),
            Some(&kind) => Err(Why::Content(format!("a block of kind {kind} among the steps"))),
            None => Err(Why::Content("an empty block".into())),
        }
    }

    /// What follows the index, which was read last.
    fn finish(&mut self) -> Result<(), Why> {
        let index = codec::index(&self.payload).map_err(Why::Content)?;
        if index.steps != self.steps {
            return Err(Why::Content(format!("the index counts {} steps", index.steps)));
        }
        let why = self.blocks.after_the_index(self.begin);
        if why == Why::Finished {
            self.begin = self.blocks.offset + TAIL as u64;
        }
        Err(why)
    }

    /// The state after the steps read so far, if one is there and was not asked for yet.
    ///
    /// # Errors
    /// A sentence, where it does not decode or says that it belongs elsewhere.
    pub(super) fn state(&mut self) -> Option<Result<Checkpoint, String>> {
        let payload = self.state.take()?;
        Some(codec::state(&payload).and_then(|(steps, state)| match steps {
            steps if steps == self.steps => Ok(state),
            steps => Err(format!("a state after {steps} steps")),
        }))
    }

    /// The next step, as far as a replay needs it; its code and what it took are put into the two buffers. It is told once.
    #[inline]
    pub(super) fn told(&mut self, code: &mut Vec<u8>, taken: &mut Vec<u8>) -> Result<Told, Why> {
        steps::told(&self.payload[self.at..], &mut self.past, code, taken).map_err(Why::Content)
    }

    /// Bytes of the block from so many bytes into the next step on.
    #[inline]
    pub(super) fn rest(&self, used: usize) -> &[u8] {
        &self.payload[self.at + used..]
    }

    /// What is known of the block before the next step.
    #[inline]
    pub(super) fn past(&self) -> &Past {
        &self.past
    }

    /// The next step has had these effects.
    #[inline]
    pub(super) fn hears(&mut self, effects: &[Effect]) {
        self.past.hears(effects);
    }

    /// The next step, whole, and its bytes.
    fn step(&mut self) -> Result<(Step, usize), Why> {
        let (mut step, used) = steps::read(&self.payload[self.at..], &mut self.past).map_err(Why::Content)?;
        step.time = self.time.saturating_add(step.time);
        Ok((step, used))
    }

    /// The next step, which has so many bytes, is understood: another one follows it.
    #[inline]
    pub(super) fn accept(&mut self, used: usize, time: u64) -> Result<(), End> {
        self.steps += 1;
        self.left -= 1;
        self.passed(used, time)
    }

    #[inline]
    fn passed(&mut self, used: usize, time: u64) -> Result<(), End> {
        self.at += used;
        self.time = time;
        match self.payload.len() - self.at {
            more if self.left == 0 && self.remarks == 0 && more > 0 => {
                Err(self.end(Why::Content(format!("{more} bytes after the last step of a block"))))
            }
            _ => Ok(()),
        }
    }

    /// The time of the step that was accepted last.
    #[inline]
    pub(super) fn time(&self) -> u64 {
        self.time
    }

    /// Nothing more is read.
    pub(super) fn end(&mut self, why: Why) -> End {
        self.ended = true;
        End { offset: self.begin, steps: self.steps, why }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Step, End>;

    fn next(&mut self) -> Option<Result<Step, End>> {
        if self.ended {
            return None;
        }
        if let Err(end) = self.advance() {
            return Some(Err(end));
        }
        Some(match self.step() {
            Ok((step, used)) => self.accept(used, step.time).map(|()| step),
            Err(why) => Err(self.end(why)),
        })
    }
}

impl<R: Read> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Reader");
        debug.field("header", &self.header).field("offset", &self.offset()).field("steps", &self.steps);
        debug.finish_non_exhaustive()
    }
}

/// Reads until the buffer is full or the file ends, and says how much that was.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Why> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(&error)),
        }
    }
    Ok(got)
}

pub(super) fn unreadable(error: &std::io::Error) -> Why {
    Why::Unreadable(error.to_string())
}
