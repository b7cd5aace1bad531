//! Changes that are made at once, or not at all: on a copy of the tree, which counts in the end unless others have changed what was
//! looked at.

use super::tree::Tree;
use super::watch::Event;
use std::collections::BTreeSet;

/// One that is under way.
#[derive(Debug)]
pub struct Transaction {
    /// The tree as its maker sees it.
    pub tree: Tree,
    begun: Tree,
    /// Nodes that were looked at or changed.
    pub touched: BTreeSet<String>,
    changes: Vec<Change>,
}

/// A change.
#[derive(Clone, Debug)]
pub enum Change {
    /// There is to be such a node.
    Make(String),
    /// It is to have this value.
    Write(String, Vec<u8>),
    /// It is to go.
    Remove(String),
    /// It is to have these rights.
    Rights(String, Vec<u8>),
}

impl Change {
    /// Makes it, and says what those hear who watch.
    pub fn make(&self, tree: &mut Tree) -> Vec<Event> {
        let event = |path: &String| Event { path: path.clone(), exact: false };
        match self {
            Change::Make(path) => tree.make(path).then(|| event(path)).into_iter().collect(),
            Change::Write(path, value) => {
                tree.write(path, value);
                vec![event(path)]
            }
            Change::Rights(path, rights) => tree.set_rights(path, rights).then(|| event(path)).into_iter().collect(),
            Change::Remove(path) => {
                let gone = tree.remove(path);
                gone.into_iter().map(|node| Event { exact: node != *path, path: node }).collect()
            }
        }
    }
}

impl Transaction {
    /// Begins.
    #[must_use]
    pub fn begin(tree: &Tree) -> Transaction {
        let touched = BTreeSet::new();
        Transaction { tree: tree.clone(), begun: tree.clone(), touched, changes: Vec::new() }
    }

    /// Makes a change that nobody else sees yet.
    pub fn change(&mut self, change: Change) {
        change.make(&mut self.tree);
        self.changes.push(change);
    }

    /// Makes its changes to the tree; `None` where somebody has changed what it touched since.
    pub fn end(self, tree: &mut Tree) -> Option<Vec<Event>> {
        let same = |path: &String| tree.generation(path) == self.begun.generation(path);
        if !self.touched.iter().all(same) {
            return None;
        }
        Some(self.changes.iter().flat_map(|change| change.make(tree)).collect())
    }
}
