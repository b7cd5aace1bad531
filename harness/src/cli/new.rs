//! `mem-event new`: a folder with a scenario, its guest, and the runtime that guests boot on, complete without this repository.

use crate::output::print;
use crate::refusal::Refusal;
use anyhow::Context;
use include_dir::{Dir, include_dir};
use std::path::Path;

static RUNTIME: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../guests/src");
const MANIFEST: &str = include_str!("../../../guests/Cargo.toml");
const FLAGS: &str = include_str!("../../../guests/.cargo/config.toml");
const LINK: &str = include_str!("../../../guests/link.ld");
const GUEST: &str = include_str!("new/guest.rs");
const SCENARIO: &str = include_str!("new/scenario.toml");
/// What the templates call the guest.
const NAME: &str = "NAME";

/// Writes the folder.
///
/// # Errors
/// Its last part is no name, it is there already, or it cannot be written.
pub fn new(folder: &Path) -> anyhow::Result<u8> {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let allowed = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if !name.starts_with(|letter: char| letter.is_ascii_lowercase()) || !name.chars().all(allowed) {
        let remedy = "begin with a small letter, go on with small letters, digits and underscores";
        return Err(Refusal::usage(format!("{name:?} is no name for a guest"), remedy).into());
    }
    if folder.exists() {
        return Err(Refusal::usage(format!("{} is there already", folder.display()), "choose another name").into());
    }
    for (path, text) in files(name) {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let at = folder.display();
    print(&format!(
        "{at}/guest/src/bin/{name}.rs   the guest\n{at}/scenarios/{name}.toml   the scenario\n\n\
         next:  (cd {at}/guest && cargo build --release)\n       mem-event test {at}/scenarios --accept\n"
    ))?;
    Ok(0)
}

fn files(name: &str) -> Vec<(String, String)> {
    let runtime = RUNTIME
        .files()
        .filter_map(|file| Some((format!("guest/src/{}", file.path().display()), file.contents_utf8()?.to_owned())));
    let manifest = MANIFEST
        .replace("name = \"mem-event-guests\"", &format!("name = \"{name}-guest\""))
        .replace("Bare-metal guests, one behaviour each, and the small runtime they boot on", "A guest for mem-event");
    let own = [
        ("guest/Cargo.toml".to_owned(), manifest),
        ("guest/.cargo/config.toml".to_owned(), FLAGS.to_owned()),
        ("guest/link.ld".to_owned(), LINK.to_owned()),
        (format!("guest/src/bin/{name}.rs"), GUEST.replace(NAME, name)),
        (format!("scenarios/{name}.toml"), SCENARIO.replace(NAME, name)),
        (".gitignore".to_owned(), "target\n*.snap.new\n*.failed\n".to_owned()),
    ];
    runtime.chain(own).collect()
}
