//! What stands in folders is known to the program and its tests by that alone: the guests, and the scenarios that run on them.

use std::path::{Path, PathBuf};

fn main() {
    // The scenarios are in the program: when one comes, goes or changes, it is built anew.
    println!("cargo::rerun-if-changed=../snapshots");
    println!("cargo::rerun-if-changed=../guests/src/bin");
    let guests = names(Path::new("../guests/src/bin"), "rs");
    let scenarios = names(Path::new("../snapshots"), "toml");
    let runs_here = |name: &&String| guests.contains(&guest(name));
    let tests: Vec<&str> = scenarios.iter().filter(runs_here).map(String::as_str).collect();
    write("guests.rs", &format!("&{guests:?}\n"));
    write("scenarios.rs", &macro_over(&tests));
}

/// The names of a folder's files with this ending.
fn names(folder: &Path, ending: &str) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = files.filter_map(|entry| Some(entry.ok()?.path()));
    let named = paths.filter(|path| path.extension().is_some_and(|found| found == ending));
    let mut names: Vec<String> = named.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort_unstable();
    names
}

/// The guest of a scenario: the value of its one line that names one.
fn guest(scenario: &str) -> String {
    let text = std::fs::read_to_string(format!("../snapshots/{scenario}.toml")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("guest = \""));
    line.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
}

/// A macro that hands the scenarios' names to another, which makes a test of each.
fn macro_over(names: &[&str]) -> String {
    format!("macro_rules! with_all_scenarios {{ ($each:ident) => {{ $each! {{ {} }} }} }}\n", names.join(" "))
}

fn write(name: &str, text: &str) {
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names the folder"));
    std::fs::write(folder.join(name), text).expect("the folder can be written");
}
