//! The guest's project: its program, and the runtime that guests boot on.

use super::file::{File, NAME};
use include_dir::{Dir, include_dir};

static RUNTIME: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../guests/src");
const MANIFEST: &str = include_str!("../../../../guests/Cargo.toml");
const FLAGS: &str = include_str!("../../../../guests/.cargo/config.toml");
const LINK: &str = include_str!("../../../../guests/link.ld");

/// A guest with a page to watch.
pub const WATCHED: &str = include_str!("templates/guest.rs");
/// A guest with pages to take away.
pub const PAGED: &str = include_str!("../../../../guests/src/bin/page_in.rs");

/// The files of a guest with this program.
pub fn files(name: &str, program: &str) -> Vec<File> {
    let manifest = MANIFEST
        .replace("name = \"mem-event-guests\"", &format!("name = \"{name}-guest\""))
        .replace("Bare-metal guests, one behaviour each, and the small runtime they boot on", "A guest for mem-event");
    let runtime = RUNTIME
        .files()
        .filter_map(|file| Some((format!("guest/src/{}", file.path().display()), file.contents_utf8()?.to_owned())));
    let own = [
        ("guest/Cargo.toml".to_owned(), manifest),
        ("guest/.cargo/config.toml".to_owned(), FLAGS.to_owned()),
        ("guest/link.ld".to_owned(), LINK.to_owned()),
        (format!("guest/src/bin/{name}.rs"), program.replace(NAME, name)),
    ];
    runtime.chain(own).collect()
}
