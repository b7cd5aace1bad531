//! Holds the imports of the project's crates against the floors that ARCHITECTURE.md lists. A file imports from rooms on lower
//! floors and from its own room; no files import each other in a circle; no file has more lines than a reader can hold.
//!
//! A room is a file or a folder directly below a crate's `src`. An import counts as one of the file that defines the name, and not of a
//! file that hands the name on with `pub use`.

mod floors;
mod names;
mod rooms;
mod source;

use anyhow::{Context, Result};
use std::path::Path;
use std::process::ExitCode;

/// Lines of a file without its tests.
const MOST_LINES: usize = 400;

fn main() -> Result<ExitCode> {
    let document = std::fs::read_to_string("ARCHITECTURE.md").context("run this at the top of the project")?;
    let houses = floors::houses(&document)?;
    let mut faults = Vec::new();
    for house in &houses {
        let files = source::files(Path::new(&house.path)).with_context(|| house.path.clone())?;
        let imports = names::imports(&files);
        faults.extend(rooms::circles(&files, &imports).into_iter().map(|fault| format!("{}: {fault}", house.path)));
        faults.extend(
            rooms::against(house, &files, &imports).into_iter().map(|fault| format!("{}: {fault}", house.path)),
        );
        let long = files.iter().filter(|file| file.lines > MOST_LINES);
        faults.extend(
            long.map(|file| {
                format!("{}: {} lines without tests, {MOST_LINES} at most", file.path.display(), file.lines)
            }),
        );
        println!(
            "storeys: {}: {} files on {} floors, {} imports",
            house.path,
            files.len(),
            house.floors.len(),
            imports.len()
        );
    }
    for fault in &faults {
        eprintln!("storeys: {fault}");
    }
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("storeys: {} faults; the floors are listed in ARCHITECTURE.md under `Floors`", faults.len());
    Ok(ExitCode::FAILURE)
}
