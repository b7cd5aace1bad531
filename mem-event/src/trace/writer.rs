//! The recorder.

use super::codec::{self, StepsHead};
use super::index::{BlockAt, Index, StateAt};
use super::steps::{self, Past};
use super::{Context, Header, MAGIC, Remark, TAIL_MAGIC, VERSION};
use crate::domain::Domain;
use crate::effect::{Effects, Outcome};
use crate::input::Input;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Bytes that wait in memory at most before they go to the file; no block of steps is much longer.
const BUFFER: usize = 1 << 16;
/// Blocks nearer than this to the one before are not in the index: a recorder that is flushed often makes small ones.
const APART: u64 = 1 << 15;
/// A state follows so many steps after the last one: a replay does them in some hundredths of a second.
const STATE_EVERY: u64 = 1 << 16;

/// Writes a trace. Once it runs, it never fails the run that it records: after the first error it writes nothing more, and
/// [`Writer::failed`] says why.
pub struct Writer<W: Write = File> {
    file: W,
    buffer: Vec<u8>,
    /// The block of steps in the buffer.
    block: StepsHead,
    past: Past,
    /// Bytes before those in the buffer.
    offset: u64,
    time: u64,
    index: Index,
    /// The first block that has as many steps before it as the last one.
    first: BlockAt,
    /// Bytes after which the recording ends.
    limit: u64,
    /// Steps from one state to the next.
    state_every: u64,
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
    /// A trace into anything, a pipe too; its header is written at once.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn new(mut file: W, header: &Header) -> io::Result<Writer<W>> {
        let mut buffer = Vec::with_capacity(2 * BUFFER);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&VERSION.to_le_bytes());
        codec::header_block(&mut buffer, header).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        file.write_all(&buffer)?;
        let offset = buffer.len() as u64;
        buffer.clear();
        let block = StepsHead { before: 0, count: 0, remarks: 0, time: 0 };
        let first = BlockAt { before: 0, offset, time: 0 };
        let frames: u64 = header.config.ram.iter().map(|(_, count)| count).sum();
        // Taking a state reads the whole p2m: a large one less often.
        let state_every = STATE_EVERY.max(frames / 4);
        let index = Index::default();
        Ok(Writer {
            file,
            buffer,
            block,
            past: Past::default(),
            offset,
            time: 0,
            index,
            first,
            limit: u64::MAX,
            state_every,
            failed: None,
        })
    }

    /// Changes how many steps lie between two states, at least 1.
    pub fn put_states_every(&mut self, steps: u64) {
        self.state_every = steps.max(1);
    }

    /// The recording ends in order once it has so many bytes, or a block more; [`Writer::failed`] says so then.
    pub fn limit(&mut self, bytes: u64) {
        self.limit = bytes;
    }

    /// Records one step. It is in the file after the next [`Writer::flush`], or when enough others follow.
    pub fn record(&mut self, context: Context<'_>, input: &Input, outcome: &Outcome, effects: &Effects) {
        if self.failed.is_some() {
            return;
        }
        let later = self.begin_at(context.time);
        let Context { code, connection, .. } = context;
        match steps::write(&mut self.buffer, &mut self.past, (later, connection, code), input, outcome, effects) {
            Ok(()) => {
                self.time += later;
                self.block.count += 1;
                self.index.steps += 1;
            }
            Err(why) => {
                self.flush();
                self.failed.get_or_insert(why);
            }
        }
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// Records a remark, at so many nanoseconds from the beginning. One that is too long is left out.
    pub fn remark(&mut self, time: u64, remark: &Remark) {
        if self.failed.is_some() {
            return;
        }
        let later = self.begin_at(time);
        if steps::write_remark(&mut self.buffer, &mut self.past, later, remark).is_ok() {
            self.time += later;
            self.block.remarks += 1;
        }
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// A step or a remark comes at this time; how much later than the last one.
    #[inline]
    fn begin_at(&mut self, time: u64) -> u64 {
        if self.buffer.is_empty() {
            codec::begin_steps(&mut self.buffer);
            self.past.forget();
            self.block = StepsHead { before: self.steps(), count: 0, remarks: 0, time: self.time };
        }
        time.saturating_sub(self.time)
    }

    /// Whether a state is due, for [`Writer::keep`].
    #[inline]
    #[must_use]
    pub fn wants_state(&self) -> bool {
        let last = self.index.states.last().map_or(0, |state| state.steps);
        self.steps() - last >= self.state_every
    }

    /// Puts the state after the steps so far into the trace, so that a reader begins from here.
    pub fn keep(&mut self, domain: &Domain) {
        self.flush();
        if self.failed.is_some() {
            return;
        }
        let (steps, offset) = (self.steps(), self.offset);
        // One that is too large is left out: reading goes on without it.
        let _ = codec::state_block(&mut self.buffer, steps, &domain.checkpoint());
        self.index.states.push(StateAt { steps, offset });
        self.hand_over();
    }

    /// Hands what waits in memory to the operating system: from then on it outlives this process.
    pub fn flush(&mut self) {
        let holds = self.block.count > 0 || self.block.remarks > 0;
        if self.failed.is_none() && !self.buffer.is_empty() && holds {
            let head = self.block;
            if self.first.before != head.before || self.index.blocks.is_empty() {
                self.first = BlockAt { before: head.before, offset: self.offset, time: head.time };
            }
            let last = self.index.blocks.last();
            if last.is_none_or(|last| last.before < head.before && self.first.offset - last.offset >= APART) {
                self.index.blocks.push(self.first);
            }
            if let Err(why) = codec::seal_steps(&mut self.buffer, 0, head) {
                self.failed = Some(why);
            }
            self.hand_over();
        }
        self.buffer.clear();
    }

    fn hand_over(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.file.write_all(&self.buffer).and_then(|()| self.file.flush())
        {
            self.failed = Some(error.to_string());
        }
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        if self.failed.is_none() && self.offset > self.limit {
            let limit = std::mem::replace(&mut self.limit, u64::MAX);
            self.write_index();
            self.failed.get_or_insert_with(|| format!("it may have {limit} bytes, its limit"));
        }
    }

    fn write_index(&mut self) {
        let offset = self.offset;
        if let Err(why) = codec::index_block(&mut self.buffer, &self.index) {
            self.failed = Some(why);
        }
        self.buffer.extend_from_slice(&offset.to_le_bytes());
        self.buffer.extend_from_slice(TAIL_MAGIC);
        self.hand_over();
    }

    /// Steps recorded so far.
    #[inline]
    pub fn steps(&self) -> u64 {
        self.index.steps
    }

    /// Why nothing is recorded any more, if so.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Where the bytes go.
    pub fn output(&mut self) -> &mut W {
        &mut self.file
    }

    /// Ends the recording in order.
    ///
    /// # Errors
    /// The first error of the whole recording.
    pub fn finish(mut self) -> Result<(), String> {
        self.flush();
        if self.failed.is_none() {
            self.limit = u64::MAX;
            self.write_index();
        }
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
        f.debug_struct("Writer").field("steps", &self.steps()).field("failed", &self.failed).finish_non_exhaustive()
    }
}
