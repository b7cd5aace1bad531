//! The record of a run while it grows, as a sequence.

use super::sequence::{Placed, Sequence};
use anyhow::bail;
use mem_event::trace::{Follower, Why};
use mem_event_client::Client;
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long what the plugin has written may take to be in the file: only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the file.
const RETRY: Duration = Duration::from_millis(1);

/// A record that is read as it comes.
#[derive(Debug)]
pub struct Recording {
    /// The file that it is, or will be, in; none for a pipe.
    path: Option<PathBuf>,
    follower: Option<Follower>,
    sequence: Sequence,
    /// The connection that asked for a record through a pipe, which ends with it.
    connection: Option<Client>,
}

impl Recording {
    /// The record that is, or will be, in this file.
    #[must_use]
    pub fn of(path: &Path) -> Recording {
        Recording { path: Some(path.to_owned()), follower: None, sequence: Sequence::default(), connection: None }
    }

    /// A record from here on, which the plugin sends through a pipe as long as this connection of its own lasts.
    ///
    /// # Errors
    /// The kernel gives no pipe, or the plugin refuses.
    pub fn asked_of(mut client: Client) -> anyhow::Result<Recording> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // The reader's end alone: the writer's thread waits for room.
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
        // The plugin's copy alone stays: when that goes, the record ends.
        client.record(&write)?;
        let follower = Some(Follower::new(File::from(read)));
        Ok(Recording { path: None, follower, sequence: Sequence::default(), connection: Some(client) })
    }

    /// Whether it must be read lest its writer has no room.
    #[must_use]
    pub fn is_pipe(&self) -> bool {
        self.path.is_none()
    }

    /// Requests and checkpoints that were read.
    #[must_use]
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Reads what is there by now.
    pub fn read(&mut self, out: &mut Vec<Placed>) {
        if let (None, Some(path)) = (&self.follower, &self.path) {
            self.follower = Follower::open(path).ok();
        }
        let Some(follower) = &mut self.follower else { return };
        while let Some(record) = follower.record() {
            self.sequence.take(&record, out);
        }
    }

    /// Reads up to this step, which is on its way to the file.
    ///
    /// # Errors
    /// It does not come.
    pub fn read_to(&mut self, steps: u64, out: &mut Vec<Placed>) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.read(out);
            let read = self.follower.as_ref().map_or(0, Follower::steps);
            if read >= steps {
                return Ok(());
            }
            if self.follower.as_ref().is_some_and(|follower| follower.end().is_some()) || Instant::now() > until {
                bail!("the run's record ends after {read} steps, and the run has {steps}");
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Nobody writes it any more: reads the rest.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn finish(&mut self, out: &mut Vec<Placed>) -> anyhow::Result<()> {
        self.connection = None;
        self.read(out);
        // What is in a pipe's writer comes after the end of its connection.
        let until = Instant::now() + if self.is_pipe() { PATIENCE } else { Duration::ZERO };
        while self.follower.as_ref().is_some_and(|it| it.end().is_none() && !it.ran_dry()) && Instant::now() < until {
            std::thread::sleep(RETRY);
            self.read(out);
        }
        self.sequence.finish(out);
        let Some(follower) = &self.follower else { return Ok(()) };
        match follower.end() {
            Some(end) if end.why != Why::Finished => bail!("the run's record: {end}"),
            // A file's writer says where it ended its recording early.
            None if self.is_pipe() => bail!("the run's record breaks off after {} steps", follower.steps()),
            _ => Ok(()),
        }
    }
}

/// A record that somebody keeps, in a file, of a domain that runs: from its beginning here to its end.
#[derive(Debug)]
pub struct Kept {
    connection: Client,
    path: PathBuf,
}

impl Kept {
    /// Begins it, in a file that is written anew.
    ///
    /// # Errors
    /// The file cannot be written, or the plugin refuses.
    pub fn begin(socket: &Path, path: &Path) -> anyhow::Result<Kept> {
        let mut connection = Client::connect(socket)?;
        connection.record(File::create(path)?)?;
        Ok(Kept { connection, path: path.to_owned() })
    }

    /// Ends it, and waits for its last byte.
    ///
    /// # Errors
    /// It has no end, or another than that.
    pub fn end(self) -> anyhow::Result<()> {
        drop(self.connection);
        let until = Instant::now() + PATIENCE;
        let mut follower = Follower::open(&self.path)?;
        loop {
            while follower.record().is_some() {}
            match follower.end() {
                Some(end) if end.why == Why::Finished => return Ok(()),
                Some(end) => bail!("the trace {}: {end}", self.path.display()),
                None if Instant::now() > until => bail!("the trace {} has no end", self.path.display()),
                None => std::thread::sleep(RETRY),
            }
        }
    }
}
