//! What this program writes on its output, and the version of what programs read of it.

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write};

/// When the output is coloured. Colours only underline what signs and letters say too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` has any content (no-color.org).
    #[default]
    Auto,
    /// Also in files and pipes.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// Whether this program's output is coloured.
    #[must_use]
    pub fn is_on(self) -> bool {
        self.is_on_for(std::io::stdout().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
    }

    fn is_on_for(self, terminal: bool, no_color: Option<&OsStr>) -> bool {
        match self {
            Color::Auto => terminal && no_color.is_none_or(OsStr::is_empty),
            Color::Always => true,
            Color::Never => false,
        }
    }
}

/// Whether a CI system runs this, as they all say.
#[must_use]
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Text as HTML shows it.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How an HTML page begins that needs nothing else: as far as its body's first line. The title is escaped already.
#[must_use]
pub fn page_head(title: &str, style: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{style}</style></head><body>\n"
    )
}

/// A cell of CSV as RFC 4180 wants it.
#[must_use]
pub fn quoted(cell: String) -> String {
    if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

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
    use super::{Color, VERSION, json};
    use std::ffi::OsStr;

    #[test]
    fn colours_are_for_terminals_unless_no_color_or_the_user_says_otherwise() {
        let (no_color, empty) = (Some(OsStr::new("1")), Some(OsStr::new("")));
        assert!(Color::Auto.is_on_for(true, None) && Color::Auto.is_on_for(true, empty));
        assert!(!Color::Auto.is_on_for(true, no_color) && !Color::Auto.is_on_for(false, None));
        assert!(Color::Always.is_on_for(false, no_color) && !Color::Never.is_on_for(true, None));
    }

    #[test]
    fn a_line_of_json_begins_with_its_version() {
        let line = json(&serde_json::json!({ "event": "x" })).unwrap();
        assert_eq!(line, format!("{{\"version\":{VERSION},\"event\":\"x\"}}"));
        assert!(json(&[1]).is_err(), "a list has no place for one");
    }
}
