//! A crate's files, parsed.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;

/// One file of a crate.
#[derive(Debug)]
pub struct File {
    /// From the top of the project.
    pub path: PathBuf,
    /// Its module, from the crate's root.
    pub module: Vec<String>,
    /// What it says, without its tests.
    pub items: Vec<syn::Item>,
    /// How many lines it has, without its tests.
    pub lines: usize,
}

impl File {
    /// The file or folder directly below the crate's `src` that it belongs to.
    pub fn room(&self) -> &str {
        self.module.first().map_or("lib", String::as_str)
    }
}

/// The files of a library, in the order of their names. Programs beside it (`main.rs`, `bin/`) stand above all floors, and are not among them.
pub fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    collect(root, &mut Vec::new(), &mut files)?;
    Ok(files)
}

fn collect(folder: &Path, module: &mut Vec<String>, files: &mut Vec<File>) -> Result<()> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_top = module.is_empty();
        if path.is_dir() {
            if !(is_top && name == "bin") {
                module.push(name);
                collect(&path, module, files)?;
                module.pop();
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && !(is_top && name == "main") {
            let mut module = module.clone();
            if name != "mod" && !(is_top && name == "lib") {
                module.push(name);
            }
            files.push(read(path.clone(), module).with_context(|| path.display().to_string())?);
        }
    }
    Ok(())
}

fn read(path: PathBuf, module: Vec<String>) -> Result<File> {
    let text = std::fs::read_to_string(&path)?;
    let (tests, items): (Vec<_>, Vec<_>) = syn::parse_file(&text)?.items.into_iter().partition(is_test);
    let lines_of = |item: &syn::Item| item.span().end().line - item.span().start().line + 1;
    let lines = text.lines().count() - tests.iter().map(lines_of).sum::<usize>();
    Ok(File { path, module, items, lines })
}

/// Whether an item is compiled for tests alone.
fn is_test(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|flag| flag == "test")
    })
}
