//! `mem-event new`: a folder to start from, anywhere, complete without this repository: a scenario, its guest with the runtime that guests
//! boot on and, if it is wanted, a consumer that the scenario tests.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | the folder's name, and what is written |
//! | `file` | a file's path and text, which the others make |
//! | `guest` | the guest's project |
//! | `consumer` | the consumer's, which is a worked example of `mem-event/client/examples`, and what builds and tests it |
//! | `crates` | the sources that a consumer in Rust is built with |

mod consumer;
mod crates;
mod file;
mod guest;

use self::consumer::Kind;
use self::file::{File, NAME};
use super::arguments::New;
use crate::output::print;
use crate::refusal::Refusal;
use anyhow::Context;
use std::path::Path;

const SCENARIO: &str = include_str!("templates/scenario.toml");

/// Writes the folder.
///
/// # Errors
/// Its last part is no name, it is there already, or it cannot be written.
pub fn new(arguments: &New) -> anyhow::Result<u8> {
    let folder = &arguments.folder;
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if !name.starts_with(|letter: char| letter.is_ascii_lowercase()) || !name.chars().all(allowed) {
        let remedy = "begin with a small letter, go on with small letters, digits and underscores";
        return Err(Refusal::usage(format!("{name:?} is no name for a guest"), remedy).into());
    }
    if folder.exists() {
        return Err(Refusal::usage(format!("{} is there already", folder.display()), "choose another name").into());
    }
    let kind = match (arguments.pager, arguments.listener) {
        (true, _) => Some(Kind::Pager),
        (false, true) => Some(Kind::Listener),
        (false, false) => None,
    };
    let files = match kind {
        None => [guest::files(name, guest::WATCHED), scenario(name)].concat(),
        Some(kind) => [guest::files(name, kind.guest()), kind.files(name, arguments.language)].concat(),
    };
    for (path, text) in files {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&next(folder, name, kind.map(|kind| kind.source(arguments.language))))?;
    Ok(0)
}

fn scenario(name: &str) -> Vec<File> {
    vec![
        (format!("scenarios/{name}.toml"), SCENARIO.replace(NAME, name)),
        (".gitignore".into(), "target\n*.snap.new\n*.failed\n".into()),
    ]
}

/// What is there, and what to do with it.
fn next(folder: &Path, name: &str, consumer: Option<String>) -> String {
    let at = folder.display();
    let files = format!("{at}/guest/src/bin/{name}.rs   the guest\n{at}/scenarios/{name}.toml   the scenario\n");
    match consumer {
        None => format!(
            "{files}\nnext:  (cd {at}/guest && cargo build --release)\n       mem-event test {at}/scenarios --accept\n"
        ),
        Some(source) => format!(
            "{at}/{source}   the consumer\n{files}{at}/README.md   each step, and what it needs\n\nnext:  make -C {at} test\n"
        ),
    }
}
