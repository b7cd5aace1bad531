//! What a trace's header says of a run, in the file that the plugin reads (its argument `facts=`).

use crate::guest::Guest;
use crate::guest::symbols::Symbols;
use crate::machine::folder::RunFolder;
use crate::scenario::Scenario;
use anyhow::Context;
use std::fmt::Write;
use std::path::PathBuf;

/// Writes the facts of a run into its folder; without a guest's image it is Linux.
///
/// # Errors
/// The folder cannot be written.
pub fn write(
    scenario: &Scenario,
    guest: Option<&Guest>,
    symbols: &Symbols,
    folder: &RunFolder,
) -> anyhow::Result<PathBuf> {
    let path = folder.file("facts");
    std::fs::write(&path, text(scenario, guest, symbols))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn text(scenario: &Scenario, guest: Option<&Guest>, symbols: &Symbols) -> String {
    let mut text = String::new();
    let command: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{}", line.to_string().replace('\n', " "));
    };
    line(format_args!("fact command {}", command.join(" ")));
    if let Some(guest) = guest {
        let path = std::path::absolute(&guest.path).unwrap_or_else(|_| guest.path.clone());
        line(format_args!("fact image {}", path.display()));
    }
    // As it was written; what the command line adds is in the command.
    let written = match &scenario.source {
        Some(source) => source.text.clone(),
        None => format!("{:#?}", scenario),
    };
    for part in written.lines() {
        line(format_args!("scenario {part}"));
    }
    for symbol in symbols.iter() {
        line(format_args!("symbol {:x} {:x} {}", symbol.gpa.0, symbol.size, symbol.name));
    }
    text
}
