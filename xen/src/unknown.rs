//! Calls that are not there: each is refused, and named once, so that the tool's user learns what is missing.

use std::collections::BTreeSet;

/// What was named.
#[derive(Debug, Default)]
pub struct Unknown {
    said: BTreeSet<String>,
    lines: Vec<String>,
}

impl Unknown {
    /// Has a line said, if it was not said before.
    pub fn say(&mut self, line: String) {
        if self.said.insert(line.clone()) {
            self.lines.push(line);
        }
    }

    /// The lines that are to be said now.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}
