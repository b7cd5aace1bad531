//! The built-in scenarios: the files of `snapshots/`, in this program.

use super::Scenario;
use crate::refusal::Refusal;
use include_dir::{Dir, include_dir};
use std::path::Path;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../snapshots");

/// The guests of this project, bare metal without firmware.
const GUESTS: &[&str] = include!(concat!(env!("OUT_DIR"), "/guests.rs"));

/// All of them, by name.
///
/// # Panics
/// One of them is wrong, which a test of this file excludes.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut names: Vec<&str> = FILES.files().filter_map(|file| file.path().to_str()?.strip_suffix(".toml")).collect();
    names.sort_unstable();
    names.into_iter().filter_map(find).collect()
}

/// Those of the built-in guests, which take moments; the others boot what somebody else made.
#[must_use]
pub fn of_built_in_guests() -> Vec<Scenario> {
    all().into_iter().filter(|scenario| GUESTS.contains(&scenario.machine.guest.as_str())).collect()
}

/// The one with this name.
///
/// # Panics
/// As [`all`].
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    let path = Path::new("snapshots").join(format!("{name}.toml"));
    let text = FILES.get_file(path.file_name()?)?.contents_utf8()?.to_owned();
    match Scenario::parse(&path, text) {
        Ok(scenario) => Some(scenario),
        Err(refusal) => panic!("a built-in scenario is wrong: {refusal}"),
    }
}

/// The scenario in this file, where the name is a file's; else the built-in one with this name.
///
/// # Errors
/// The file cannot be read, or is no scenario.
pub fn find_or_load(name: &str) -> Result<Option<Scenario>, Refusal> {
    if name.ends_with(".toml") { Scenario::load(Path::new(name)).map(Some) } else { Ok(find(name)) }
}

/// The file with the accepted sequence of the built-in scenario with this name.
#[must_use]
pub fn snapshot(name: &str) -> Option<&'static str> {
    let file = FILES.get_file(format!("{name}.snap"))?;
    file.contents_utf8()
}

/// Linux with a busybox init that fills and verifies files in memory.
///
/// # Panics
/// As [`all`].
#[must_use]
pub fn linux() -> Scenario {
    find("linux").expect("snapshots/linux.toml")
}

#[cfg(test)]
mod tests {
    use super::all;

    #[test]
    fn every_built_in_scenario_can_be_read_and_says_what_it_is_about() {
        let all = all();
        assert!(all.len() > 10);
        for scenario in all {
            let about = scenario.about.trim();
            let (title, rest) = about.split_once("\n\n").unwrap_or((about, ""));
            assert!((1..=120).contains(&title.len()), "{}: its title is {title:?}", scenario.name);
            assert!(rest.len() > 100, "{}: no paragraph about it", scenario.name);
        }
    }
}
