//! The first serial port, write only: what a person and the harness read.

use core::fmt::{self, Write};
use core::hint;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::port;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;

static BUSY: AtomicBool = AtomicBool::new(false);

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while port::read_u8(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
                hint::spin_loop();
            }
            port::write_u8(DATA, byte);
        }
        Ok(())
    }
}

/// Writes one line; lines of several vCPUs do not mix. Use [`crate::println!`].
pub fn line(text: fmt::Arguments<'_>) {
    // A vCPU that faults while it prints must still be able to say so: after a while the line goes out regardless.
    let mut patience = 1_000_000;
    while BUSY.swap(true, Ordering::Acquire) && patience > 0 {
        patience -= 1;
        hint::spin_loop();
    }
    // The port's own write never fails; a failing Display in a guest's arguments would lose its own text only.
    let _ = Port.write_fmt(text);
    let _ = Port.write_str("\n");
    BUSY.store(false, Ordering::Release);
}

/// Writes a line on the serial port.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::serial::line(format_args!($($arg)*)) };
}
