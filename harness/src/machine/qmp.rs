//! QEMU's monitor: one JSON object a line, both ways.

use anyhow::{Context, bail};
use serde_json::{Value, json};
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
    /// Nothing more will come.
    ended: bool,
    shutdown: Option<String>,
    asleep: bool,
    /// How a migration stands.
    migration: Option<String>,
}

impl Qmp {
    /// Takes the greeting and leaves the negotiation mode. QEMU greets when its machine is complete.
    ///
    /// # Errors
    /// QEMU ends, stays silent, or speaks something else.
    pub fn handshake(stream: UnixStream) -> anyhow::Result<Qmp> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Qmp { stream, unread: Vec::new(), ended: false, shutdown: None, asleep: false, migration: None };
        let greeting = qmp.line()?.context("QEMU ended before its monitor spoke")?;
        if greeting.get("QMP").is_none() {
            bail!("the monitor greets with {greeting}");
        }
        qmp.execute("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Runs a command without arguments and returns what it returns; events that come meanwhile count.
    ///
    /// # Errors
    /// QEMU refuses, ends or stays silent.
    pub fn execute(&mut self, command: &str) -> anyhow::Result<Value> {
        self.execute_with(command, &json!({}))
    }

    /// The same with arguments.
    ///
    /// # Errors
    /// As above.
    pub fn execute_with(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream.write_all(line.as_bytes()).with_context(|| format!("QEMU takes no {command}"))?;
        loop {
            let mut answer = self.line()?.with_context(|| format!("QEMU ended without an answer to {command}"))?;
            if answer.get("event").is_some() {
                self.note(&answer);
            } else if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {}", error["desc"].as_str().unwrap_or("no reason given"));
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Runs a command that begins a migration, and waits for the migration's end.
    ///
    /// # Errors
    /// As [`Qmp::execute`]; the migration fails, and what QEMU says of it.
    pub fn migrate(&mut self, command: &str, arguments: &Value) -> anyhow::Result<()> {
        let tell = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.execute_with("migrate-set-capabilities", &tell)?;
        self.migration = None;
        self.execute_with(command, arguments)?;
        while !matches!(self.migration.as_deref(), Some("completed" | "failed" | "cancelled")) {
            let told = self.line()?.with_context(|| format!("QEMU ended within {command}"))?;
            self.note(&told);
        }
        if self.migration.as_deref() == Some("completed") {
            return Ok(());
        }
        let why = self.execute("query-migrate")?;
        bail!("{}", why["error-desc"].as_str().unwrap_or("QEMU does not say why"))
    }

    /// Takes what QEMU has told until now; call it when the descriptor can be read.
    ///
    /// # Errors
    /// What comes is not the monitor's language.
    pub fn hear(&mut self) -> anyhow::Result<()> {
        self.stream.set_nonblocking(true)?;
        let heard = std::iter::from_fn(|| self.line().transpose()).collect::<anyhow::Result<Vec<_>>>();
        self.stream.set_nonblocking(false)?;
        heard?.iter().for_each(|line| self.note(line));
        Ok(())
    }

    fn note(&mut self, told: &Value) {
        match told["event"].as_str() {
            Some("SHUTDOWN") => self.shutdown = told["data"]["reason"].as_str().map(str::to_owned),
            Some("SUSPEND") => self.asleep = true,
            Some("WAKEUP") => self.asleep = false,
            Some("MIGRATION") => self.migration = told["data"]["status"].as_str().map(str::to_owned),
            _ => {}
        }
    }

    /// Why QEMU is about to end, where it has told: `guest-reset`, `guest-shutdown`, `host-signal` and others (`ShutdownCause`).
    #[must_use]
    pub fn shutdown(&self) -> Option<&str> {
        self.shutdown.as_deref()
    }

    /// Whether the guest sleeps (S3), as far as QEMU has told.
    #[must_use]
    pub fn is_asleep(&self) -> bool {
        self.asleep
    }

    /// Whether QEMU has closed the monitor.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
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
                Ok(0) => return Ok(self.end()),
                Ok(count) => self.unread.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(self.end()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.silence(),
                Err(error) => return Err(error).context("the monitor cannot be read"),
            }
        }
    }

    fn end(&mut self) -> Option<Value> {
        self.ended = true;
        None
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
    fn what_is_told_between_a_command_and_its_answer_counts() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let qemu = std::thread::spawn(move || {
            let mut writer = theirs.try_clone().unwrap();
            let mut reader = BufReader::new(theirs).lines();
            writer.write_all(b"{\"QMP\": {}}\r\n").unwrap();
            reader.next();
            writer.write_all(b"{\"return\": {}}\r\n").unwrap();
            reader.next();
            writer.write_all(b"{\"event\": \"SUSPEND\"}\n{\"return\": 7}\n").unwrap();
            reader.next();
            writer.write_all(b"{\"return\": 8}\n{\"event\": \"WAKEUP\"}\n").unwrap();
            writer.write_all(b"{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n").unwrap();
        });
        let mut qmp = Qmp::handshake(ours).unwrap();
        assert_eq!(qmp.execute("cont").unwrap(), 7);
        assert!(qmp.is_asleep() && qmp.shutdown().is_none());
        assert_eq!(qmp.execute("stop").unwrap(), 8);
        qemu.join().unwrap();
        qmp.hear().unwrap();
        assert!(!qmp.is_asleep() && qmp.has_ended());
        assert_eq!(qmp.shutdown(), Some("guest-reset"));
    }
}
