//! QEMU's monitor: one JSON object a line, both ways.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long QEMU may take for one command before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A monitor connection after its handshake.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    unread: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation mode. QEMU greets when its machine is complete.
    ///
    /// # Errors
    /// QEMU ends, stays silent, or speaks something else.
    pub fn handshake(stream: UnixStream) -> anyhow::Result<Qmp> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Qmp { stream, unread: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.line()?.context("QEMU ended before its monitor spoke")?;
        if greeting.get("QMP").is_none() {
            bail!("the monitor greets with {greeting}");
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Runs a command without arguments and returns what it returns; events that come meanwhile are kept.
    ///
    /// # Errors
    /// QEMU refuses, ends or stays silent.
    pub fn execute(&mut self, command: &str) -> anyhow::Result<Value> {
        let line = format!("{}\n", json!({ "execute": command }));
        self.stream.write_all(line.as_bytes()).with_context(|| format!("QEMU takes no {command}"))?;
        loop {
            let mut answer = self.line()?.with_context(|| format!("QEMU ended without an answer to {command}"))?;
            if answer.get("event").is_some() {
                self.events.push_back(answer);
            } else if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or("no reason given"));
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// The next event that is here already; call it when the descriptor can be read. `Ok(None)`: none yet, or QEMU ended.
    ///
    /// # Errors
    /// What comes is not the monitor's language.
    pub fn event(&mut self) -> anyhow::Result<Option<Value>> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        self.stream.set_nonblocking(true)?;
        let line = self.line();
        self.stream.set_nonblocking(false)?;
        Ok(line?.filter(|line| line.get("event").is_some()))
    }

    /// One object; `None` at the end of the stream, or when nothing is here and the stream does not block.
    fn line(&mut self) -> anyhow::Result<Option<Value>> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let value = serde_json::from_slice(&line);
                return value.map(Some).with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&line).trim()));
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.unread.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.silence(),
                Err(error) => return Err(error).context("the monitor cannot be read"),
            }
        }
    }

    /// Nothing was there to read: fine if the stream is not to block, a hang if QEMU had all its time.
    fn silence(&self) -> anyhow::Result<Option<Value>> {
        let flags = rustix::fs::fcntl_getfl(&self.stream)?;
        if flags.contains(rustix::fs::OFlags::NONBLOCK) {
            return Ok(None);
        }
        bail!("QEMU's monitor is silent for {} s", PATIENCE.as_secs())
    }
}

impl AsFd for Qmp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Qmp;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn events_between_a_command_and_its_answer_are_kept() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut reader = BufReader::new(theirs).lines();
            writer.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            reader.next();
            writer.write_all(b"{\"return\": {}}\r\n").unwrap();
            reader.next();
            writer.write_all(b"{\"event\": \"RESUME\"}\n{\"return\": 7}\n").unwrap();
        });
        let mut qmp = Qmp::handshake(ours).unwrap();
        assert_eq!(qmp.execute("cont").unwrap(), 7);
        assert_eq!(qmp.event().unwrap().unwrap()["event"], "RESUME");
        qemu.join().unwrap();
        assert_eq!(qmp.event().unwrap(), None);
    }
}
