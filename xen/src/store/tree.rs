//! The nodes.

use super::path;
use std::collections::BTreeMap;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Any bytes.
    pub value: Vec<u8>,
    /// Who may do what, as it was said; noted alone.
    pub rights: Vec<u8>,
    /// When it, or which nodes are below it, was changed last.
    pub generation: u64,
}

/// All of them, by their whole names.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    generation: u64,
}

impl Default for Tree {
    fn default() -> Tree {
        let mut tree = Tree { nodes: BTreeMap::new(), generation: 0 };
        tree.make("/");
        tree
    }
}

impl Tree {
    /// A node.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// When a node was changed last; `None` where there is none.
    #[must_use]
    pub fn generation(&self, path: &str) -> Option<u64> {
        self.nodes.get(path).map(|node| node.generation)
    }

    /// The names of the nodes right below one, in order.
    pub fn children<'a>(&'a self, above: &'a str) -> impl Iterator<Item = &'a str> {
        let below = self.nodes.range(above.to_owned()..).map(|(path, _)| &**path);
        // What begins with the same letters may lie between, so the end is where the letters end.
        let below = below.take_while(move |path| path.starts_with(above));
        below.filter(move |path| path::parent(path) == Some(above)).map(path::name)
    }

    fn changed(&mut self, path: &str) {
        self.generation += 1;
        let generation = self.generation;
        if let Some(node) = self.nodes.get_mut(path) {
            node.generation = generation;
        }
    }

    /// Makes a node where there is none, and those above it. Whether there was none.
    pub fn make(&mut self, path: &str) -> bool {
        if self.nodes.contains_key(path) {
            return false;
        }
        let mut rights = b"n0\0".to_vec();
        if let Some(above) = path::parent(path) {
            self.make(above);
            rights.clone_from(&self.nodes[above].rights);
            self.changed(above);
        }
        self.nodes.insert(path.to_owned(), Node { value: Vec::new(), rights, generation: 0 });
        self.changed(path);
        true
    }

    /// Gives a node a value.
    pub fn write(&mut self, path: &str, value: &[u8]) {
        self.make(path);
        if let Some(node) = self.nodes.get_mut(path) {
            node.value = value.to_vec();
        }
        self.changed(path);
    }

    /// Gives a node rights; false where there is none.
    pub fn set_rights(&mut self, path: &str, rights: &[u8]) -> bool {
        let Some(node) = self.nodes.get_mut(path) else { return false };
        node.rights = rights.to_vec();
        self.changed(path);
        true
    }

    /// Takes a node out, and those below it; their names.
    pub fn remove(&mut self, path: &str) -> Vec<String> {
        let gone: Vec<String> = self.nodes.keys().filter(|node| path::is_within(node, path)).cloned().collect();
        for node in &gone {
            self.nodes.remove(node);
        }
        if let Some(above) = path::parent(path).filter(|_| !gone.is_empty()) {
            self.changed(above);
        }
        gone
    }
}
