//! Reads a trace up to its end or to the first damage.

use super::codec::{self, Record, Told};
use super::{End, FRAME, Header, KIND_STEP, LONGEST, MAGIC, PREAMBLE, Step, VERSION, Why};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// Bytes of a frame's checksum.
const SUM: usize = 4;
/// Bytes of a frame's length, which stay before the payload in the buffer.
const LENGTH: usize = 4;

/// The steps of a trace, one after the other; after the last one an [`End`], as the iterator's only error.
pub struct Reader<R: Read = BufReader<File>> {
    file: R,
    header: Header,
    /// The length and payload of the frame read last.
    payload: Vec<u8>,
    offset: u64,
    steps: u64,
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
    /// Reads the header of a trace from anything.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(mut file: R) -> Result<Reader<R>, End> {
        let end = |offset, why| End { offset, steps: 0, why };
        let mut preamble = [0; PREAMBLE];
        let got = fill(&mut file, &mut preamble).map_err(|why| end(0, why))?;
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
        let mut payload = Vec::new();
        let offset = PREAMBLE as u64;
        let header = frame(&mut file, &mut payload)
            .and_then(|()| codec::record(&payload[LENGTH..]).map_err(Why::Content))
            .map_err(|why| end(offset, why))?;
        match header {
            Record::Header(header) => {
                let offset = offset + (SUM + payload.len()) as u64;
                Ok(Reader { file, header, payload, offset, steps: 0, ended: false })
            }
            Record::Step(_) | Record::End(_) => Err(end(offset, Why::Content("the first frame is no header".into()))),
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The byte after the last step read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the next step's frame; nothing of it is decoded.
    ///
    /// # Errors
    /// The trace's end, which comes once and is remembered.
    pub(super) fn advance(&mut self) -> Result<(), End> {
        let read = frame(&mut self.file, &mut self.payload).and_then(|()| self.expect_step());
        read.map_err(|why| self.end(why))
    }

    fn expect_step(&mut self) -> Result<(), Why> {
        let (kind, _) = codec::kind(&self.payload[LENGTH..]).map_err(Why::Content)?;
        if kind == KIND_STEP {
            return Ok(());
        }
        match codec::record(&self.payload[LENGTH..]).map_err(Why::Content)? {
            Record::End(steps) if steps == self.steps => {}
            Record::End(steps) => return Err(Why::Content(format!("the end mark counts {steps} steps"))),
            Record::Header(_) | Record::Step(_) => return Err(Why::Content("a second header".into())),
        }
        let frame = self.payload.len();
        if fill(&mut self.file, &mut [0; 1])? != 0 {
            return Err(Why::Content("bytes after the end mark".into()));
        }
        self.offset += (SUM + frame) as u64;
        Err(Why::Finished)
    }

    /// The step that was read last, as far as a replay needs it.
    pub(super) fn told(&self) -> Result<Told<'_>, Why> {
        codec::told(&self.payload[LENGTH + 1..]).map_err(Why::Content)
    }

    /// The step that was read last, whole.
    pub(super) fn step(&self) -> Result<Step, Why> {
        match codec::record(&self.payload[LENGTH..]).map_err(Why::Content)? {
            Record::Step(step) => Ok(step),
            Record::Header(_) | Record::End(_) => Err(Why::Content("no step".into())),
        }
    }

    /// The step that was read last is understood: the next one follows it.
    pub(super) fn accept(&mut self) {
        self.steps += 1;
        self.offset += (SUM + self.payload.len()) as u64;
    }

    /// Nothing more is read.
    pub(super) fn end(&mut self, why: Why) -> End {
        self.ended = true;
        End { offset: self.offset, steps: self.steps, why }
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
            Ok(step) => {
                self.accept();
                Ok(step)
            }
            Err(why) => Err(self.end(why)),
        })
    }
}

impl<R: Read> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Reader");
        debug.field("header", &self.header).field("offset", &self.offset).field("steps", &self.steps);
        debug.finish_non_exhaustive()
    }
}

/// Reads one frame; its length and payload stay in the buffer.
fn frame(file: &mut impl Read, buffer: &mut Vec<u8>) -> Result<(), Why> {
    let mut head = [0; FRAME];
    match fill(file, &mut head)? {
        FRAME => {}
        0 => return Err(Why::Stopped),
        got => return Err(Why::Cut(got as u64)),
    }
    let [s0, s1, s2, s3, l0, l1, l2, l3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let size = length as usize;
    if size == 0 || size > LONGEST {
        return Err(Why::Length(length));
    }
    buffer.resize(LENGTH + size, 0);
    buffer[..LENGTH].copy_from_slice(&[l0, l1, l2, l3]);
    let got = fill(file, &mut buffer[LENGTH..])?;
    if got < size {
        return Err(Why::Cut((FRAME + got) as u64));
    }
    if crc32fast::hash(buffer) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Err(Why::Checksum);
    }
    Ok(())
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

fn unreadable(error: &std::io::Error) -> Why {
    Why::Unreadable(error.to_string())
}
