//! What this program writes on its output.

use anyhow::Context;
use std::io::Write;

/// Writes to the output; a reader that went away is no error.
///
/// # Errors
/// The output cannot be written.
pub fn print(text: &str) -> anyhow::Result<()> {
    is_read(text).map(drop)
}

/// The same, for what goes on for long: whether somebody still reads.
///
/// # Errors
/// As [`print()`].
pub fn is_read(text: &str) -> anyhow::Result<bool> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write the output"),
        Ok(()) => Ok(true),
    }
}
