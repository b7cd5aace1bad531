//! What is kept of a domain for all of its clients.

use crate::breakpoints::Breakpoints;
use crate::page_file::PageFile;

/// What outlives a connection, and what connections have between them.
#[derive(Debug, Default)]
pub struct Kept {
    /// The pager's, for its successor.
    pub page_file: PageFile,
    /// Whose are where.
    pub breakpoints: Breakpoints,
}
