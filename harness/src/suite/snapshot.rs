//! Snapshots in insta's format: a header between two lines of three dashes, then the text.

use crate::refusal::Refusal;
use crate::scenario::Scenario;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The text of a snapshot's file, without its header. An editor's byte order mark and a checkout's line ends are no part of it.
#[must_use]
pub fn text(file: &str) -> String {
    let file = file.strip_prefix('\u{feff}').unwrap_or(file).replace("\r\n", "\n");
    let file = file.as_str();
    let body = file.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
    body.map_or(file, |(_, text)| text).to_owned()
}

/// The accepted sequence, if there is one.
///
/// # Errors
/// The file is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<String>, Refusal> {
    match std::fs::read_to_string(path) {
        Ok(file) => Ok(Some(text(&file))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what = format!("cannot read the snapshot {}: {error}", path.display());
            Err(Refusal::usage(what, "make it readable, or remove it"))
        }
    }
}

/// What a run has seen.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The sequence.
    pub sequence: &'a str,
    /// What it cannot show, where that is so.
    pub not_seen: Option<&'a str>,
}

/// Where a sequence waits for a person's word.
#[must_use]
pub fn pending(path: &Path) -> PathBuf {
    path.with_extension("snap.new")
}

/// Writes a sequence that waits.
///
/// # Errors
/// The folder cannot be written.
pub fn propose(path: &Path, scenario: &Scenario, seen: &Seen<'_>) -> anyhow::Result<()> {
    write(&pending(path), scenario, seen)
}

/// Writes a sequence as the accepted one; none waits any more.
///
/// # Errors
/// The folder cannot be written.
pub fn accept(path: &Path, scenario: &Scenario, seen: &Seen<'_>) -> anyhow::Result<()> {
    write(path, scenario, seen)?;
    withdraw(path);
    Ok(())
}

/// No sequence waits any more.
pub fn withdraw(path: &Path) {
    let _ = std::fs::remove_file(pending(path));
}

fn write(path: &Path, scenario: &Scenario, seen: &Seen<'_>) -> anyhow::Result<()> {
    let (source, title) = (format!("{}.toml", scenario.name), serde_json::to_string(scenario.title())?);
    let mut header = format!("source: {source}\ndescription: {title}\n");
    if let Some(sentence) = seen.not_seen {
        header += &format!("info: {}\n", serde_json::to_string(sentence)?);
    }
    let text = format!("---\n{header}---\n{}\n", seen.sequence.trim_end());
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn the_header_is_no_part_of_the_text() {
        assert_eq!(text("---\nsource: x\n---\na\nb\n"), "a\nb\n");
        assert_eq!(text("a\n"), "a\n");
    }

    #[test]
    fn line_ends_and_a_byte_order_mark_are_no_part_of_the_text() {
        assert_eq!(text("\u{feff}---\r\nsource: x\r\n---\r\na\r\nb\r\n"), "a\nb\n");
    }
}
