//! The recorder.

use super::{Header, MAGIC, VERSION, codec};
use crate::effect::{Effects, Outcome};
use crate::input::Input;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Bytes that wait in memory at most before they go to the file.
const BUFFER: usize = 1 << 16;

/// Writes a trace. Once it runs, it never fails the run that it records: after the first error it writes nothing more, and
/// [`Writer::failed`] says why.
pub struct Writer<W: Write = File> {
    file: W,
    buffer: Vec<u8>,
    steps: u64,
    failed: Option<String>,
}

impl Writer {
    /// A trace in a new file, or in place of an old one; its header is written at once.
    ///
    /// # Errors
    /// What the file system refuses; `InvalidInput` for a header that is too long.
    pub fn create(path: impl AsRef<Path>, header: &Header) -> io::Result<Writer> {
        Writer::new(File::create(path)?, header)
    }
}

impl<W: Write> Writer<W> {
    /// A trace into anything; its header is written at once.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn new(file: W, header: &Header) -> io::Result<Writer<W>> {
        let mut buffer = Vec::with_capacity(2 * BUFFER);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&VERSION.to_le_bytes());
        codec::header_frame(&mut buffer, header).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        let mut writer = Writer { file, buffer, steps: 0, failed: None };
        writer.file.write_all(&writer.buffer)?;
        writer.buffer.clear();
        Ok(writer)
    }

    /// Records one step. It is in the file after the next [`Writer::flush`], or when enough others follow.
    pub fn record(&mut self, input: &Input, outcome: &Outcome, effects: &Effects) {
        if self.failed.is_some() {
            return;
        }
        match codec::step_frame(&mut self.buffer, input, outcome, effects) {
            Ok(()) => self.steps += 1,
            Err(why) => {
                self.flush();
                self.failed.get_or_insert(why);
            }
        }
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// Hands what waits in memory to the operating system: from then on it outlives this process.
    pub fn flush(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.file.write_all(&self.buffer).and_then(|()| self.file.flush())
        {
            self.failed = Some(error.to_string());
        }
        self.buffer.clear();
    }

    /// Steps recorded so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Why nothing is recorded any more, if so.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Ends the recording in order.
    ///
    /// # Errors
    /// The first error of the whole recording.
    pub fn finish(mut self) -> Result<(), String> {
        if self.failed.is_none()
            && let Err(why) = codec::end_frame(&mut self.buffer, self.steps)
        {
            self.failed = Some(why);
        }
        self.flush();
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl<W: Write> Drop for Writer<W> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<W: Write> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("steps", &self.steps).field("failed", &self.failed).finish_non_exhaustive()
    }
}
