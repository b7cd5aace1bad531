//! The floors as ARCHITECTURE.md lists them: below the heading `Floors`, for each crate a line that begins with its folder in backticks,
//! and then a numbered list from the ground up, each item the rooms of one floor in backticks.

use anyhow::{Result, bail};

/// One crate's floors.
#[derive(Debug)]
pub struct House {
    /// Its sources, from the top of the project.
    pub path: String,
    /// The rooms of each floor, from the ground up.
    pub floors: Vec<Vec<String>>,
}

impl House {
    /// The floor of a room.
    pub fn floor(&self, room: &str) -> Option<usize> {
        self.floors.iter().position(|rooms| rooms.iter().any(|name| name == room))
    }
}

/// What stands in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The crates that the document lists.
pub fn houses(document: &str) -> Result<Vec<House>> {
    let mut houses: Vec<House> = Vec::new();
    let section = document.lines().skip_while(|line| !(line.starts_with('#') && line.ends_with("Floors"))).skip(1);
    for line in section.take_while(|line| !line.starts_with('#')) {
        if line.starts_with('`') {
            let path = quoted(line).next().unwrap_or_default().to_owned();
            houses.push(House { path, floors: Vec::new() });
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let Some(house) = houses.last_mut() else { bail!("a floor before any crate: {line}") };
            house.floors.push(quoted(line).map(str::to_owned).collect());
        }
    }
    if houses.is_empty() {
        bail!("ARCHITECTURE.md lists no floors");
    }
    Ok(houses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_are_the_numbered_lists_below_their_heading() {
        let text = "# A\n1. `no`\n## Floors\nWords.\n\n`a/src`, from the ground up:\n\n1. `x`, `y`: words\n2. `z`\n\n`b/src`\n1. `w`\n## B\n1. `no`\n";
        let houses = houses(text).unwrap();
        assert_eq!(houses.len(), 2);
        assert_eq!((houses[0].floor("y"), houses[0].floor("z"), houses[0].floor("no")), (Some(0), Some(1), None));
        assert_eq!(houses[1].path, "b/src");
    }

    #[test]
    fn a_document_without_floors_is_refused() {
        assert!(houses("# A\n1. `x`\n").is_err());
    }
}
