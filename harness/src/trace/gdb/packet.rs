//! Packets of gdb's remote serial protocol: `$TEXT#SUM`, each acknowledged by `+`, or by `-` where the sum is wrong.

use std::fmt;
use std::io::{self, BufReader, Read, Write};

/// Bytes of the longest packet that is taken.
pub const LONGEST: usize = 1 << 14;

/// A connection to gdb.
pub struct Packets<S: Read + Write> {
    stream: BufReader<S>,
    last: Vec<u8>,
}

impl<S: Read + Write> Packets<S> {
    /// On a stream.
    pub fn new(stream: S) -> Packets<S> {
        Packets { stream: BufReader::new(stream), last: Vec::new() }
    }

    /// The next packet's text; `None` where gdb is gone.
    ///
    /// # Errors
    /// The stream's, or a packet that is too long.
    pub fn receive(&mut self) -> io::Result<Option<String>> {
        loop {
            match self.byte()? {
                None => return Ok(None),
                Some(b'$') => {}
                Some(b'-') => {
                    let last = std::mem::take(&mut self.last);
                    self.stream.get_mut().write_all(&last)?;
                    self.last = last;
                    continue;
                }
                // An acknowledgement; or an interruption of a machine that stands already.
                Some(_) => continue,
            }
            let mut text = Vec::new();
            loop {
                match self.byte()? {
                    None => return Ok(None),
                    Some(b'#') => break,
                    Some(_) if text.len() >= LONGEST => {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet of gdb's is too long"));
                    }
                    Some(byte) => text.push(byte),
                }
            }
            let (Some(high), Some(low)) = (self.byte()?, self.byte()?) else { return Ok(None) };
            let told = std::str::from_utf8(&[high, low]).ok().and_then(|sum| u8::from_str_radix(sum, 16).ok());
            if told != Some(sum(&text)) {
                self.stream.get_mut().write_all(b"-")?;
                continue;
            }
            self.stream.get_mut().write_all(b"+")?;
            return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
        }
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// The stream's.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        self.last = format!("${text}#{:02x}", sum(text.as_bytes())).into_bytes();
        self.stream.get_mut().write_all(&self.last)
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        loop {
            match self.stream.read(&mut byte) {
                Ok(0) => return Ok(None),
                Ok(_) => return Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().copied().fold(0, u8::wrapping_add)
}

impl<S: Read + Write> fmt::Debug for Packets<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packets").finish_non_exhaustive()
    }
}

/// Bytes as pairs of digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
