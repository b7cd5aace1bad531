//! What this program writes on its output, and the version of what programs read of it.

use anyhow::Context;
use serde::Serialize;
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

/// The version of JSON and CSV: it changes when a field goes, or gets another name or meaning. New fields do not change it.
pub const VERSION: u32 = 2;

#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    content: &'a T,
}

/// An object as one line of JSON that begins with the version.
///
/// # Errors
/// It is no object.
pub fn json(content: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(&Versioned { version: VERSION, content })
}

#[cfg(test)]
mod tests {
    use super::{VERSION, json};

    #[test]
    fn a_line_of_json_begins_with_its_version() {
        let line = json(&serde_json::json!({ "event": "x" })).unwrap();
        assert_eq!(line, format!("{{\"version\":{VERSION},\"event\":\"x\"}}"));
        assert!(json(&[1]).is_err(), "a list has no place for one");
    }
}
