//! How a guest ends: one of four verdicts, after the Xen Test Framework's `report.h`.
//!
//! The last serial line is the result that machines read, and the exit port turns it into QEMU's exit status,
//! `(code << 1) | 1`. The first verdict ends the guest; a panic or an unexpected exception is an error: they are bugs of
//! the guest until somebody shows otherwise. A guest that says nothing and disappears has crashed, which the harness sees.

use core::fmt;
use core::hint;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::{port, serial};

/// QEMU's `isa-debug-exit`, `iobase=0xf4,iosize=4`.
const EXIT_PORT: u16 = 0xf4;

/// What the guest found. The numbers are what it writes to the exit port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works as it should.
    Success = 0x10,
    /// It cannot run here.
    Skip = 0x13,
    /// The guest itself, or its environment, is broken.
    Error = 0x14,
    /// The code under test is broken.
    Failure = 0x15,
}

/// The guest is content.
pub fn success() -> ! {
    first();
    serial::line(format_args!("verdict: success"));
    end(Verdict::Success)
}

/// Ends with `verdict` and the reason for it. Use [`crate::failure!`], [`crate::error!`] or [`crate::skip!`].
pub fn finish(verdict: Verdict, why: fmt::Arguments<'_>) -> ! {
    first();
    let name = match verdict {
        Verdict::Success => "success",
        Verdict::Skip => "skip",
        Verdict::Error => "error",
        Verdict::Failure => "failure",
    };
    serial::line(format_args!("verdict: {name}: {why}"));
    end(verdict)
}

/// Returns on the first call only. On a later one another vCPU is about to end the guest, and its line is the verdict;
/// or this one faulted while it reported, so that after a while this is an error.
fn first() {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if ENDING.swap(true, Ordering::Relaxed) {
        for _ in 0..10_000_000 {
            hint::spin_loop();
        }
        end(Verdict::Error);
    }
}

fn end(verdict: Verdict) -> ! {
    port::write_u32(EXIT_PORT, verdict as u32);
    loop {
        hint::spin_loop();
    }
}

/// The code under test is broken: says why and ends the guest.
#[macro_export]
macro_rules! failure {
    ($($arg:tt)*) => { $crate::verdict::finish($crate::verdict::Verdict::Failure, format_args!($($arg)*)) };
}

/// The guest or its environment is broken: says why and ends the guest.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::verdict::finish($crate::verdict::Verdict::Error, format_args!($($arg)*)) };
}

/// The guest cannot run here: says why and ends.
#[macro_export]
macro_rules! skip {
    ($($arg:tt)*) => { $crate::verdict::finish($crate::verdict::Verdict::Skip, format_args!($($arg)*)) };
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => error!("panic at {}:{}: {}", at.file(), at.line(), info.message()),
        None => error!("panic: {}", info.message()),
    }
}
