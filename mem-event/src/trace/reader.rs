//! Reads a trace up to its end or to the first damage.

use super::codec::{self, Record};
use super::{End, FRAME, Header, LONGEST, MAGIC, PREAMBLE, Step, VERSION, Why};
use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

/// The steps of a trace, one after the other; after the last one an [`End`], as the iterator's only error.
pub struct Reader<R: Read = BufReader<File>> {
    file: R,
    header: Header,
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
        match frame(&mut file, &mut payload).map_err(|why| end(offset, why))? {
            Record::Header(header) => {
                let offset = offset + (FRAME + payload.len()) as u64;
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

    fn step(&mut self) -> Result<Step, Why> {
        match frame(&mut self.file, &mut self.payload)? {
            Record::Step(step) => Ok(step),
            Record::Header(_) => Err(Why::Content("a second header".into())),
            Record::End(steps) if steps != self.steps => {
                Err(Why::Content(format!("the end mark counts {steps} steps")))
            }
            Record::End(_) => {
                let rest = fill(&mut self.file, &mut [0; 1])?;
                if rest != 0 {
                    return Err(Why::Content("bytes after the end mark".into()));
                }
                self.offset += (FRAME + self.payload.len()) as u64;
                Err(Why::Finished)
            }
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Step, End>;

    fn next(&mut self) -> Option<Result<Step, End>> {
        if self.ended {
            return None;
        }
        Some(match self.step() {
            Ok(step) => {
                self.steps += 1;
                self.offset += (FRAME + self.payload.len()) as u64;
                Ok(step)
            }
            Err(why) => {
                self.ended = true;
                Err(End { offset: self.offset, steps: self.steps, why })
            }
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

/// Reads one frame; the payload's bytes stay in the buffer.
fn frame(file: &mut impl Read, payload: &mut Vec<u8>) -> Result<Record, Why> {
    let mut head = [0; FRAME];
    match fill(file, &mut head)? {
        FRAME => {}
        0 => return Err(Why::Stopped),
        got => return Err(Why::Cut(got as u64)),
    }
    let [l0, l1, l2, l3, s0, s1, s2, s3] = head;
    let bytes = [l0, l1, l2, l3];
    let length = u32::from_le_bytes(bytes);
    let size = length as usize;
    if size == 0 || size > LONGEST {
        return Err(Why::Length(length));
    }
    payload.resize(size, 0);
    let got = fill(file, payload)?;
    if got < size {
        return Err(Why::Cut((FRAME + got) as u64));
    }
    if codec::checksum(bytes, payload) != u32::from_le_bytes([s0, s1, s2, s3]) {
        return Err(Why::Checksum);
    }
    codec::record(payload).map_err(Why::Content)
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
