//! The sources that a consumer in Rust is built with: the crates are in no registry, so they come along, as the guests' runtime does.

use super::file::File;
use include_dir::{Dir, include_dir};

static ENGINE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../mem-event/src");
static CLIENT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../mem-event/client/src");
const ENGINE_MANIFEST: &str = include_str!("../../../../mem-event/Cargo.toml");
const CLIENT_MANIFEST: &str = include_str!("../../../../mem-event/client/Cargo.toml");
const ENGINE_README: &str = include_str!("../../../../mem-event/README.md");
const CLIENT_README: &str = include_str!("../../../../mem-event/client/README.md");
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");
const LOCK: &str = include_str!("../../../../Cargo.lock");
const MANIFEST: &str = include_str!("templates/consumer.toml");

/// Tests, benches and what only they need stay behind.
const LEFT_OUT: [&str; 3] = ["[dev-dependencies]", "[target.", "[[bench]]"];

/// The consumer's manifest, and the two crates beside it.
pub fn files(kind: &str) -> Vec<File> {
    let wanted = ["anyhow = ", "bincode = ", "crc32fast = ", "rustix = "];
    let dependencies = sections(WORKSPACE, |head| head == "[workspace.dependencies]");
    let dependencies: Vec<&str> =
        dependencies.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).collect();
    let shared =
        sections(WORKSPACE, |head| head.starts_with("[workspace.package]") || head.starts_with("[workspace.lints"));
    let manifest = MANIFEST
        .replace("KIND", kind)
        .replace("DEPENDENCIES", &dependencies.join("\n"))
        .replace("SHARED", shared.trim_end());
    let crate_manifest = |text| sections(text, |head| !LEFT_OUT.iter().any(|left| head.starts_with(left)));
    let mut files = vec![
        ("consumer/Cargo.toml".to_owned(), manifest),
        ("consumer/Cargo.lock".to_owned(), LOCK.to_owned()),
        ("consumer/mem-event/Cargo.toml".to_owned(), crate_manifest(ENGINE_MANIFEST)),
        ("consumer/mem-event/README.md".to_owned(), ENGINE_README.to_owned()),
        ("consumer/mem-event-client/Cargo.toml".to_owned(), crate_manifest(CLIENT_MANIFEST)),
        ("consumer/mem-event-client/README.md".to_owned(), CLIENT_README.to_owned()),
    ];
    add_all(&ENGINE, "consumer/mem-event/src", &mut files);
    add_all(&CLIENT, "consumer/mem-event-client/src", &mut files);
    files
}

/// Every file below a folder.
fn add_all(folder: &Dir<'_>, to: &str, files: &mut Vec<File>) {
    for file in folder.files() {
        let text = file.contents_utf8().unwrap_or_default();
        files.push((format!("{to}/{}", file.path().display()), text.to_owned()));
    }
    folder.dirs().for_each(|inner| add_all(inner, to, files));
}

/// The sections of a manifest whose headings are wanted, as they stand there, without comments at the ends.
fn sections(manifest: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut taken = String::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = wanted(line);
        }
        if inside && !line.starts_with('#') {
            taken += line;
            taken += "\n";
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::sections;

    #[test]
    fn sections_are_taken_by_their_headings() {
        let text = "[a]\nx = 1\n\n# about b\n[b]\ny = 2\n[a.c]\nz = 3\n";
        assert_eq!(sections(text, |head| head.starts_with("[a")), "[a]\nx = 1\n\n[a.c]\nz = 3\n");
    }
}
