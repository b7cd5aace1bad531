//! One side of gdb's remote protocol, over any stream.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// The side of the debugger.
pub struct Remote<S>(pub S);

impl<S: Read + Write> Remote<S> {
    /// What comes next.
    pub fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        byte[0]
    }

    pub fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
    }

    /// What is left of a packet that has begun; acknowledged.
    pub fn rest(&mut self) -> String {
        let mut text = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => text.push(byte),
            }
        }
        self.byte();
        self.byte();
        self.0.write_all(b"+").unwrap();
        String::from_utf8(text).unwrap()
    }
}

impl Remote<UnixStream> {
    /// What it answers.
    pub fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        self.packet()
    }

    /// The next packet; acknowledged.
    pub fn packet(&mut self) -> String {
        while self.byte() != b'$' {}
        self.rest()
    }
}
