//! The lines that docs/differences.md lists.

use std::collections::BTreeSet;

/// A script and one of its lines.
pub type Line = (String, usize);

/// What is listed.
#[derive(Debug, Default)]
pub struct Listed {
    /// Lines that are answered in another way.
    pub differ: BTreeSet<Line>,
    /// Lines whose answer is as far as the guest had come.
    pub may_differ: BTreeSet<Line>,
}

/// A row's first cell is a list of `SCRIPT:LINE,LINE,FROM-TO` in code spans; in the section "Chance" the lines may be equal too.
pub fn listed(document: &str) -> Listed {
    let mut listed = Listed::default();
    let mut is_chance = false;
    for line in document.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            is_chance = title == "Chance";
        }
        let Some(cell) = line.strip_prefix("| `").and_then(|rest| rest.split(" | ").next()) else { continue };
        let into = if is_chance { &mut listed.may_differ } else { &mut listed.differ };
        for span in cell.split(['`', ' ']).filter(|span| span.contains(':')) {
            let (script, numbers) = span.split_once(':').unwrap();
            for part in numbers.split(',') {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                let range = from.parse::<usize>().unwrap()..=to.parse().unwrap();
                into.extend(range.map(|number| (script.to_owned(), number)));
            }
        }
    }
    listed
}
