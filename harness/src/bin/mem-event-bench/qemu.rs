//! The QEMU that is measured: the one in PATH, or another that was named.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

static NAMED: OnceLock<PathBuf> = OnceLock::new();

/// All rows are measured in this one; before the first.
pub fn choose(path: PathBuf) {
    let _ = NAMED.set(path);
}

/// The one that was named.
pub fn named() -> Option<&'static Path> {
    NAMED.get().map(PathBuf::as_path)
}
