//! What was built with this program and lies beside it.

use crate::refusal::Refusal;
use std::path::{Path, PathBuf};

/// A file that was built with this program: beside it, or (for tests) in the build folder around it.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<PathBuf, Refusal> {
    let program = std::env::current_exe().unwrap_or_default();
    let folders = program.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let place = program.parent().unwrap_or(Path::new(".")).display().to_string();
        Refusal::machine(
            format!("no {name} beside the program in {place}"),
            "build the workspace: cargo build --release --workspace",
        )
    })
}
