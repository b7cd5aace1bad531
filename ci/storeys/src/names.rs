//! Which file a path leads to.

use crate::source::File;
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

/// From the file with the first number, something of the file with the second is used.
pub type Imports = BTreeSet<(usize, usize)>;

type Names = Vec<String>;

/// All imports between the files, however they are written: `use`, a path in place, a path within a macro's call.
pub fn imports(files: &[File]) -> Imports {
    let modules: BTreeMap<&[String], usize> = files.iter().enumerate().map(|(at, file)| (&*file.module, at)).collect();
    let said: Vec<Said> = files.iter().map(said).collect();
    let crate_names = Resolver { modules, said: &said };
    let mut imports = Imports::new();
    for (from, file) in files.iter().enumerate() {
        let used = said[from].used.iter().filter_map(|path| crate_names.file(&absolute(path, &file.module)?, 0));
        imports.extend(used.filter(|to| *to != from).map(|to| (from, to)));
    }
    imports
}

/// What a file says of names.
#[derive(Default)]
struct Said {
    /// Every path that may lead into the crate.
    used: BTreeSet<Names>,
    /// What the names that it imports stand for: others may reach them through it.
    imported: BTreeMap<String, Names>,
    /// The modules that stand within the file.
    inline: Vec<String>,
    /// Its child modules.
    children: BTreeSet<String>,
    /// The names that it hands on by `pub use`: no import of its own until it uses them.
    handed_on: BTreeMap<String, Names>,
}

fn said(file: &File) -> Said {
    let mut said = Said::default();
    for item in &file.items {
        if let syn::Item::Mod(item) = item {
            said.children.insert(item.ident.to_string());
        }
    }
    for item in &file.items {
        if let syn::Item::Use(item) = item
            && !matches!(item.vis, syn::Visibility::Inherited)
        {
            let mut handed_on = Said { children: said.children.clone(), ..Said::default() };
            handed_on.visit_item_use(item);
            said.imported.extend(handed_on.imported.clone());
            said.handed_on.extend(handed_on.imported);
        }
    }
    let own =
        |item: &&syn::Item| !matches!(item, syn::Item::Use(item) if !matches!(item.vis, syn::Visibility::Inherited));
    // What is imported as a module is used by its name: `use crate::poll; poll::once()` has the first path, which is enough.
    file.items.iter().filter(own).for_each(|item| said.visit_item(item));
    said
}

impl Said {
    fn uses(&mut self, mut path: Names) {
        // A module that stands within the file is no file's: its `super` is the file itself.
        for _ in &self.inline {
            if path.first().is_some_and(|first| first == "super") {
                path.remove(0);
            }
        }
        let first = path.first().map(String::as_str);
        if let Some(origin) = first.and_then(|first| self.handed_on.get(first)) {
            self.used.insert(origin.clone());
        }
        let leads_into_the_crate = matches!(first, Some("crate" | "self" | "super"));
        if leads_into_the_crate || first.is_some_and(|first| self.children.contains(first)) {
            self.used.insert(path);
        }
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &Names) {
        let with = |name: &syn::Ident| before.iter().cloned().chain([name.to_string()]).collect::<Names>();
        match tree {
            syn::UseTree::Path(path) => self.tree(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
            syn::UseTree::Glob(_) => self.uses(before.clone()),
            syn::UseTree::Name(name) => {
                let path = if name.ident == "self" { before.clone() } else { with(&name.ident) };
                self.imports(path.last().cloned().unwrap_or_default(), path);
            }
            syn::UseTree::Rename(rename) => self.imports(rename.rename.to_string(), with(&rename.ident)),
        }
    }

    fn imports(&mut self, name: String, path: Names) {
        if self.inline.is_empty() {
            self.imported.insert(name, path.clone());
        }
        self.uses(path);
    }

    /// Paths in a macro's call, which no parser knows: `crate :: a :: B`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.uses(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.uses(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.uses(path);
    }
}

impl<'a> Visit<'a> for Said {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&item.tree, &Names::new());
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.uses(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if item.content.is_some() {
            self.inline.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.inline.pop();
        }
    }

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {
        // `pub(super)` and `pub(in ...)` import nothing.
    }
}

/// A path from the crate's root, without `crate`; `None` for what leads outside.
fn absolute(path: &[String], module: &[String]) -> Option<Names> {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        // `pub(crate)` among a macro's tokens.
        "crate" if path.len() == 1 => return None,
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        _ => {}
    }
    while let Some((first, others)) = rest.split_first()
        && first == "super"
    {
        base.pop()?;
        rest = others;
    }
    base.extend_from_slice(rest);
    Some(base)
}

struct Resolver<'a> {
    modules: BTreeMap<&'a [String], usize>,
    said: &'a [Said],
}

impl Resolver<'_> {
    /// The file that defines what a path from the root names.
    fn file(&self, path: &[String], depth: usize) -> Option<usize> {
        let known = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
        let module = *self.modules.get(&path[..known])?;
        let handed_on = path.get(known).and_then(|name| self.said[module].imported.get(name));
        match handed_on {
            Some(origin) if depth < 8 => {
                let within = absolute(origin, &path[..known]).filter(|_| self.leads_inside(origin, module));
                within.and_then(|within| self.file(&within, depth + 1)).or(Some(module))
            }
            _ => Some(module),
        }
    }

    fn leads_inside(&self, path: &[String], module: usize) -> bool {
        path.first().is_some_and(|first| {
            matches!(first.as_str(), "crate" | "self" | "super") || self.said[module].children.contains(first)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(module: &str, text: &str) -> File {
        let module = module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        File { path: PathBuf::new(), module, items: syn::parse_file(text).unwrap().items, lines: 0 }
    }

    #[test]
    fn an_import_is_of_the_file_that_defines_the_name_and_not_of_one_that_hands_it_on() {
        let files = [
            file("", "mod a; mod b; pub use a::Thing;"),
            file("a", "pub struct Thing;"),
            file("b", "use crate::Thing; fn f(_: Thing) {}"),
        ];
        assert_eq!(imports(&files), Imports::from([(2, 1)]));
    }

    #[test]
    fn a_name_that_is_handed_on_and_used_is_imported() {
        let files = [file("", "mod a; pub use a::Thing; fn f(_: Thing) {}"), file("a", "pub struct Thing;")];
        assert_eq!(imports(&files), Imports::from([(0, 1)]));
    }

    #[test]
    fn paths_in_place_in_macros_and_through_a_parent_are_imports() {
        let files = [
            file("", "mod a; mod b; mod c;"),
            file("a", "fn f() { crate::b::g(); }"),
            file("b", "fn g() { println!(\"{}\", crate::c::NUMBER); }"),
            file("c", "use super::a::f;"),
        ];
        assert_eq!(imports(&files), Imports::from([(1, 2), (2, 3), (3, 1)]));
    }

    #[test]
    fn a_module_within_a_file_is_that_file() {
        let files = [file("", "mod a;"), file("a", "fn f() {} mod inner { use super::f; use crate::a::f as g; }")];
        assert_eq!(imports(&files), Imports::new());
    }

    #[test]
    fn who_may_see_a_name_is_no_import() {
        let files = [file("", "mod a;"), file("a", "mod b;"), file("a::b", "pub(super) fn f() {}")];
        assert_eq!(imports(&files), Imports::new());
    }
}
