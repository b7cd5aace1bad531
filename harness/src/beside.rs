//! What was built with this program: the plugin, the library for Xen's tools, the guests.
//!
//! An installed program has them in `lib/mem-event` of the prefix whose `bin` it lies in, wherever that is; one that was just built, beside it.
//! A variable names another folder for both.

use crate::refusal::Refusal;
use std::path::{Path, PathBuf};

/// Names the folder instead.
pub const VARIABLE: &str = "MEM_EVENT_LIB";

/// The folders in which such things may lie, the first that has one counts: that of the variable alone, if there is one; else that of the program, up
/// to two above it (for tests, which lie deeper in the build folder), and the prefix's.
#[must_use]
pub fn folders() -> Vec<PathBuf> {
    folders_of(&std::env::current_exe().unwrap_or_default(), std::env::var_os(VARIABLE).map(PathBuf::from))
}

fn folders_of(program: &Path, named: Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![named];
    }
    let prefix = program.ancestors().nth(2).map(|prefix| prefix.join("lib/mem-event"));
    above(program).chain(prefix).collect()
}

fn above(program: &Path) -> impl Iterator<Item = PathBuf> {
    program.ancestors().skip(1).take(3).map(Path::to_path_buf)
}

/// The command itself: this program, or (for tests) the one that was built with it.
///
/// # Errors
/// There is none.
pub fn command() -> Result<PathBuf, Refusal> {
    let program = std::env::current_exe().unwrap_or_default();
    above(&program).map(|folder| folder.join("mem-event")).find(|path| path.is_file()).ok_or_else(|| {
        Refusal::machine(format!("no mem-event beside {}", program.display()), "build the workspace: ci/build")
    })
}

/// A file that was built with this program.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<PathBuf, Refusal> {
    let folders = folders();
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        let [first, .., last] = &folders[..] else {
            let named = folders.first().map(|folder| folder.display().to_string()).unwrap_or_default();
            return Refusal::usage(
                format!("no {name} in {named}, which {VARIABLE} names"),
                format!("name the folder that has it, or unset {VARIABLE}"),
            );
        };
        Refusal::machine(
            format!("no {name} beside the program in {}, nor in {}", first.display(), last.display()),
            format!(
                "build the workspace (ci/build), install the package, or name the folder that has it in {VARIABLE}"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::folders_of;
    use std::path::{Path, PathBuf};

    #[test]
    fn an_installed_program_looks_in_the_prefix_that_it_lies_in_and_a_variable_rules_all_others_out() {
        let program = Path::new("/opt/tools/bin/mem-event");
        let folders = folders_of(program, None);
        assert_eq!(folders.first(), Some(&PathBuf::from("/opt/tools/bin")));
        assert_eq!(folders.last(), Some(&PathBuf::from("/opt/tools/lib/mem-event")));
        let named = PathBuf::from("/elsewhere");
        assert_eq!(folders_of(program, Some(named.clone())), [named]);
    }
}
