//! What a trace's header says of a run, in the file that the plugin reads (its argument `facts=`).

use crate::folder::RunFolder;
use crate::run::Job;
use anyhow::Context;
use std::fmt::Write;
use std::path::PathBuf;

/// Writes the facts of a job into the run's folder.
///
/// # Errors
/// The folder cannot be written.
pub fn write(job: &Job, folder: &RunFolder) -> anyhow::Result<PathBuf> {
    let path = folder.file("facts");
    std::fs::write(&path, text(job)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn text(job: &Job) -> String {
    let mut text = String::new();
    let command: Vec<String> = std::env::args().collect();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{}", line.to_string().replace('\n', " "));
    };
    line(format_args!("fact command {}", command.join(" ")));
    if let Some(guest) = &job.guest {
        let path = std::path::absolute(&guest.path).unwrap_or_else(|_| guest.path.clone());
        line(format_args!("fact image {}", path.display()));
    }
    // As it was written; what the command line adds is in the command.
    let scenario = match &job.scenario.source {
        Some(source) => source.text.clone(),
        None => format!("{:#?}", job.scenario),
    };
    for part in scenario.lines() {
        line(format_args!("scenario {part}"));
    }
    for symbol in job.symbols().iter() {
        line(format_args!("symbol {:x} {:x} {}", symbol.gpa.0, symbol.size, symbol.name));
    }
    text
}
